/** What stands for a container engine behind the API: a socket, and whatever a test answers on it. */
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

/** A server on a unix socket in a folder of its own. */
export class FakeEngine {
  readonly socketPath: string;
  private readonly folder: string;
  private readonly server: net.Server;
  private readonly open = new Set<net.Socket>();

  private constructor(server: net.Server) {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'shoal-engine-'));
    this.socketPath = path.join(this.folder, 'docker.sock');
    this.server = server;
    server.on('connection', (socket) => {
      this.open.add(socket);
      socket.on('close', () => this.open.delete(socket));
    });
  }

  /** An engine that speaks HTTP. */
  static async http(respond: http.RequestListener): Promise<FakeEngine> {
    return FakeEngine.start(http.createServer(respond));
  }

  /** An engine whose connections a test holds itself. */
  static async raw(admit: (socket: net.Socket) => void): Promise<FakeEngine> {
    return FakeEngine.start(net.createServer({ allowHalfOpen: true }, admit));
  }

  private static async start(server: net.Server): Promise<FakeEngine> {
    const engine = new FakeEngine(server);
    await new Promise<void>((resolve) => server.listen(engine.socketPath, resolve));
    return engine;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.open.size;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const socket of this.open) socket.destroy();
    await closed;
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}
