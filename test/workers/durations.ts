/**
 * About how many seconds files of tests take, so that the longest begin first: a hint, which changes the order and nothing
 * else. Files of the lab that are not named take about `otherLabSeconds`, all others next to none.
 */
const seconds: Readonly<Record<string, number>> = {
  'lab/service-upkeep': 164,
  'lab/agent-oracle': 127,
  'lab/network-sight': 119,
  'lab/autoscale': 117,
  'lab/rollout-load': 116,
  'lab/faults': 95,
  'lab/service-extras': 83,
  'lab/docker-flags': 78,
  'lab/membership': 67,
  'lab/fault-run': 66,
  'lab/failover': 65,
  'lab/service-rotation': 64,
  'lab/data-plane': 63,
  'conformance/clients/clients': 60,
  'lab/recovery': 57,
  'lab/overlay-pairs': 53,
  'lab/encryption': 50,
  'lab/returning': 46,
  'cli/cluster': 60,
  'conformance/docker-cli/coverage': 20,
  'cli/usage': 20,
  'deploy/demo': 20,
  'cli/returning': 10,
  'cli/secrecy': 10,
  'cli/daemon': 10,
  'simulation/simulation': 50,
};
const otherLabSeconds = 30;

/** The files that durations are known of, without `.test.ts`, from `test`. */
export const timedFiles: readonly string[] = Object.keys(seconds);

/** `path`: e.g. `dist/test/lab/failover.test.js`. */
export function expectedSeconds(path: string): number {
  const name = path.replace(/^dist\/test\//, '').replace(/\.test\.js$/, '');
  return seconds[name] ?? (name.startsWith('lab/') ? otherLabSeconds : 1);
}
