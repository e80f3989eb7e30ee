/** Metrics of networks between hosts, from what a data plane tells. */
import assert from 'node:assert/strict';
import { createMetrics, type NetworkSource } from '../../manager/metrics.ts';

/** Values by name with labels, of what begins with `shoal_network_`. */
async function valuesOf(metrics: ReturnType<typeof createMetrics>): Promise<Map<string, number>> {
  const lines = (await metrics.registry.metrics()).split('\n').filter((line) => /^shoal_network_/.test(line));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

describe('metrics of networks between hosts', () => {
  let asked = 0;
  let refused = 4;
  const source: NetworkSource = {
    figures: () => ({ networks: 2, services: 3, endpoints: 5, problems: 1, revision: 77, lagMs: 250 }),
    kernelFigures: async () => {
      asked += 1;
      return {
        connections: { virtual_address: 10, published_port: 20 },
        drops: { stranger: 1, unencrypted: 2, isolated: 3, refused },
        tracked: 100,
        trackedMax: 65_536,
      };
    },
  };
  const metricsOf = (networks: NetworkSource | undefined) =>
    createMetrics({ store: () => undefined, raft: () => undefined, networks: () => networks });

  it('are what the data plane and the kernel tell, each time anew, and the kernel is asked once a time', async () => {
    const metrics = metricsOf(source);
    metrics.observeProgramming(40);
    metrics.observeConvergence(60);
    const first = await valuesOf(metrics);
    assert.equal(asked, 1);
    const expected = {
      shoal_network_networks: 2,
      shoal_network_services: 3,
      shoal_network_endpoints: 5,
      shoal_network_problems: 1,
      shoal_network_revision: 77,
      shoal_network_reconcile_lag_seconds: 0.25,
      'shoal_network_connections_total{to="virtual_address"}': 10,
      'shoal_network_connections_total{to="published_port"}': 20,
      'shoal_network_drops_total{reason="stranger"}': 1,
      'shoal_network_drops_total{reason="unencrypted"}': 2,
      'shoal_network_drops_total{reason="isolated"}': 3,
      'shoal_network_drops_total{reason="refused"}': 4,
      shoal_network_conntrack_entries: 100,
      shoal_network_conntrack_entries_limit: 65_536,
      shoal_network_programming_seconds_sum: 0.04,
      'shoal_network_convergence_seconds_bucket{le="0.1"}': 1,
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(first.get(name), value, name);
    refused = 6;
    assert.equal((await valuesOf(metrics)).get('shoal_network_drops_total{reason="refused"}'), 6);
  });

  it('are zeros on a node without', async () => {
    const values = await valuesOf(metricsOf(undefined));
    assert.ok(values.size > 16);
    for (const [name, value] of values) assert.equal(value, 0, name);
  });
});
