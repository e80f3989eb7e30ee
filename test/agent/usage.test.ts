import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { DispatcherClient, StreamHandlers } from '../../agent/dispatcher-client.ts';
import { SimulatedMeter } from '../../agent/engine/simulated-meter.ts';
import { readMetric } from '../../agent/exposition.ts';
import { httpScrape } from '../../agent/scrape.ts';
import { UsageMeter } from '../../agent/usage.ts';
import type { UsageSample } from '../../proto/generated/shoal/v1/UsageSample.ts';
import type { UsageWishes__Output as UsageWishes } from '../../proto/generated/shoal/v1/UsageWishes.ts';
import { parseSelector } from '../../proto/metric-selector.ts';
import { silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';
import { realClock } from './wait.ts';

const text = `# HELP jobs How many wait.
# TYPE jobs gauge
jobs{queue="mail",host="a"} 3
jobs{queue="mail",host="b"} 4.5 1700000000000
jobs{queue="a \\"b\\", c\\\\"} 1e1
jobs_total 99
# TYPE served_total counter
served_total 20
odd NaN
`;

describe('metrics of tasks', () => {
  it('are read as Prometheus reads them, the series that fit added up', () => {
    const rows: [string, number | undefined][] = [
      ['jobs', 17.5],
      ['jobs{queue="mail"}', 7.5],
      ['jobs{queue="mail", host="b"}', 4.5],
      ['jobs{queue="none"}', undefined],
      ['jobs_total', 99],
      ['job', undefined],
      ['odd', undefined],
    ];
    for (const [selector, value] of rows)
      assert.equal(readMetric(text, parseSelector(selector)!)?.value, value, selector);
    const counters = ['jobs', 'served_total'].map(
      (name) => readMetric(text, parseSelector(name)!)?.isCounter,
    );
    assert.deepEqual(counters, [false, true]);
  });

  it('that are no selectors are refused', () => {
    for (const bad of ['', '9a', 'a b', 'a{', 'a{b}', 'a{b="c"', 'a{b="c"}x', 'a{b=c}'])
      assert.equal(parseSelector(bad), undefined, bad);
    assert.deepEqual(parseSelector('a:b{c="d", e="",}'), { name: 'a:b', labels: { c: 'd', e: '' } });
  });

  it('are asked for over HTTP, and faults said in words', async () => {
    const server = createServer((request, response) => {
      response.statusCode = request.url === '/metrics' ? 200 : 404;
      response.end(text);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const scrape = httpScrape(realClock());
    assert.equal(await scrape('127.0.0.1', port, '/metrics'), text);
    await assert.rejects(scrape('127.0.0.1', port, '/other'), /\/other: it answers status 404/);
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(scrape('127.0.0.1', port, '/metrics'), /ECONNREFUSED/);
  });
});

describe('what tasks use', () => {
  const clock = new VirtualClock();
  const meter = new SimulatedMeter();
  let handlers: StreamHandlers<UsageWishes> | undefined;
  let samples: UsageSample[];
  let served: string;
  let usage: UsageMeter;

  const client = {
    watchUsage: (given: StreamHandlers<UsageWishes>) => {
      handlers = given;
      return {
        cancel: () => {
          handlers = undefined;
        },
        report: (report: { samples?: UsageSample[] }) => samples.push(...(report.samples ?? [])),
      };
    },
  } as unknown as DispatcherClient;

  beforeEach(() => {
    samples = [];
    served = text;
    usage = new UsageMeter({
      meter,
      clock,
      log: silentLog,
      scrape: async () => served,
      tasks: () => [
        { task: { id: 'a', service_id: 'web' } as never, containerId: 'c1' },
        { task: { id: 'b', service_id: 'web' } as never, containerId: undefined },
        { task: { id: 'c', service_id: 'other' } as never, containerId: 'c2' },
      ],
    });
    usage.connect(client);
  });
  afterEach(() => usage.disconnect());

  async function round(): Promise<UsageSample> {
    samples.length = 0;
    await clock.run(5_000);
    assert.equal(samples.length, 1);
    return samples[0]!;
  }

  it('is told of the services that are asked for, how fast it rises from the second time on', async () => {
    meter.used.set('c1', { cpuNanos: 1e9, memoryBytes: 1000 });
    handlers!.onMessage({ period_ms: 5_000, wishes: [{ service_id: 'web' }] });
    await clock.run(1);
    assert.deepEqual(samples, [{ task_id: 'a', memory_bytes: '1000' }]);
    meter.used.set('c1', { cpuNanos: 6e9, memoryBytes: 2000 });
    assert.deepEqual(await round(), { task_id: 'a', memory_bytes: '2000', nano_cpus: '1000000000' });
    // The container was started again: its time begins anew.
    meter.used.set('c1', { cpuNanos: 1e9, memoryBytes: 2000 });
    assert.equal((await round()).nano_cpus, undefined);
    handlers!.onMessage({ period_ms: 5_000, wishes: [] });
    samples.length = 0;
    await clock.run(20_000);
    assert.deepEqual(samples, []);
  });

  it('has the metrics that are asked for, counters as how much they rise a second', async () => {
    const metric = (name: string) => ({ key: name, name, port: 80, path: '/m' });
    handlers!.onMessage({
      period_ms: 5_000,
      wishes: [{ service_id: 'web', metrics: [metric('jobs'), metric('served_total'), metric('none')] }],
    });
    await clock.run(1);
    assert.deepEqual(samples[0]!.metrics, { jobs: 17.5 });
    assert.deepEqual(samples[0]!.problems, { none: ':80/m has no metric none' });
    served = text.replace('served_total 20', 'served_total 70');
    assert.deepEqual((await round()).metrics, { jobs: 17.5, served_total: 10 });
  });

  it('is reported again to the next leader', async () => {
    handlers!.onMessage({ period_ms: 5_000, wishes: [{ service_id: 'web' }] });
    await clock.run(1);
    usage.connect(client);
    await clock.run(20_000);
    samples.length = 0;
    await clock.run(20_000);
    assert.deepEqual(samples, []);
    handlers!.onMessage({ period_ms: 5_000, wishes: [{ service_id: 'web' }] });
    await clock.run(1);
    assert.equal(samples.length, 1);
  });
});
