/** Commands in containers of a Docker Engine: requests of its API, typed. It remembers none of them. */
import type { Duplex } from 'node:stream';
import type { ExecCommand } from '../../proto/exec-command.ts';
import type { DockerApi } from './docker-api.ts';
import type { EngineExecs } from './engine.ts';

export class DockerExecs implements EngineExecs {
  readonly #api: DockerApi;

  constructor(api: DockerApi) {
    this.#api = api;
  }

  async make(containerId: string, request: ExecCommand): Promise<string> {
    const { Id } = await this.#api.json<{ Id: string }>({
      method: 'POST',
      path: `/containers/${encodeURIComponent(containerId)}/exec`,
      body: {
        Cmd: request.command,
        Env: request.env,
        User: request.user,
        WorkingDir: request.workingDir,
        Tty: request.tty,
        AttachStdin: request.stdin,
        AttachStdout: request.stdout,
        AttachStderr: request.stderr,
        Privileged: request.privileged,
        ...(request.detachKeys === '' ? {} : { DetachKeys: request.detachKeys }),
      },
    });
    return Id;
  }

  start(execId: string, tty: boolean): Promise<Duplex> {
    return this.#api.takeOver({
      method: 'POST',
      path: `/exec/${execId}/start`,
      body: { Detach: false, Tty: tty },
    });
  }

  async startDetached(execId: string): Promise<void> {
    await this.#api.json({ method: 'POST', path: `/exec/${execId}/start`, body: { Detach: true } });
  }

  async resize(execId: string, height: number, width: number): Promise<void> {
    await this.#api.json({
      method: 'POST',
      path: `/exec/${execId}/resize`,
      query: { h: height, w: width },
    });
  }

  async inspect(execId: string): Promise<{ isRunning: boolean; exitCode: number }> {
    const { Running, ExitCode } = await this.#api.json<{ Running: boolean; ExitCode: number | null }>({
      method: 'GET',
      path: `/exec/${execId}/json`,
    });
    return { isRunning: Running, exitCode: ExitCode ?? 0 };
  }
}
