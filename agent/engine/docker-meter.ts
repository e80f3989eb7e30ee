/** What containers of a Docker Engine use: its statistics, typed. It remembers none of them. */
import type { DockerApi } from './docker-api.ts';
import type { EngineMeter } from './engine.ts';

interface StatsAnswer {
  cpu_stats?: { cpu_usage?: { total_usage?: number } };
  memory_stats?: { usage?: number; stats?: Record<string, number> };
}

export class DockerMeter implements EngineMeter {
  readonly #api: DockerApi;

  constructor(api: DockerApi) {
    this.#api = api;
  }

  async measure(containerId: string): Promise<{ cpuNanos: number; memoryBytes: number }> {
    const { cpu_stats: cpu, memory_stats: memory } = await this.#api.json<StatsAnswer>({
      method: 'GET',
      path: `/containers/${encodeURIComponent(containerId)}/stats`,
      query: { stream: false, 'one-shot': true },
    });
    // What of files is only kept because there is room is not counted, as in `docker stats`.
    const { inactive_file: second, total_inactive_file: first } = memory?.stats ?? {};
    const kept = second ?? first ?? 0;
    return {
      cpuNanos: cpu?.cpu_usage?.total_usage ?? 0,
      memoryBytes: Math.max(0, (memory?.usage ?? 0) - kept),
    };
  }

  async address(containerId: string): Promise<string | undefined> {
    const { HostConfig, NetworkSettings } = await this.#api.json<{
      HostConfig?: { NetworkMode?: string };
      NetworkSettings?: { Networks?: Record<string, { IPAddress?: string }> | null };
    }>({ method: 'GET', path: `/containers/${encodeURIComponent(containerId)}/json` });
    if (HostConfig?.NetworkMode === 'host') return '127.0.0.1';
    const networks = Object.values(NetworkSettings?.Networks ?? {});
    return networks.map(({ IPAddress }) => IPAddress).find((address) => address);
  }
}
