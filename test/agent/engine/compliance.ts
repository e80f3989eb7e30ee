/** What every engine must do alike: one suite, run for each implementation by engine.test.ts. */
import assert from 'node:assert/strict';
import type { ContainerRequest, Engine, EngineEvent } from '../../../agent/engine/engine.ts';
import { runHealthCheck } from '../../../agent/engine/health-check.ts';
import { realClock } from '../../../cli/runtime.ts';
import { type ErrorCode, isShoalError } from '../../../proto/errors.ts';
import type { ExecCommand } from '../../../proto/exec-command.ts';

export interface EngineUnderTest {
  readonly engine: Engine;
  /** A reference of an image that is there and one that is nowhere. */
  readonly image: string;
  readonly missingImage: string;
  /** Configuration of a container that runs until it is stopped, writing `hello` first. */
  readonly lasting: Readonly<Record<string, unknown>>;
  /** Image and configuration of a container that exits with 3 by itself. */
  readonly failing: { readonly image: string; readonly config: Readonly<Record<string, unknown>> };
  /** Image and configuration of a container that cannot be started. */
  readonly broken: { readonly image: string; readonly config: Readonly<Record<string, unknown>> };
  /** Lets real or virtual time pass until the promise settles. */
  until<T>(promise: Promise<T>): Promise<T>;
  /** Lets time pass until the condition holds. */
  waitFor(condition: () => boolean): Promise<void>;
  /** Makes the container's first line appear where the engine can't. */
  speak?(containerId: string): void;
}

const mark = 'shoal.test.compliance';

const isCode = (code: ErrorCode) => (error: unknown) => isShoalError(error, code);

const execOf = (...command: string[]): ExecCommand => ({
  command,
  env: [],
  user: '',
  workingDir: '',
  tty: false,
  stdin: false,
  stdout: true,
  stderr: true,
  detachKeys: '',
  privileged: false,
});

export function engineCompliance(make: () => Promise<EngineUnderTest>): void {
  let it_: EngineUnderTest;
  let serial = 0;

  const request = (over: Partial<ContainerRequest> = {}): ContainerRequest => {
    serial += 1;
    return {
      name: `shoal-compliance-${process.pid}-${serial}`,
      labels: { [mark]: `${process.pid}` },
      image: it_.image,
      config: it_.lasting,
      ...over,
    };
  };
  const made = async (over: Partial<ContainerRequest> = {}) =>
    (await it_.until(it_.engine.create(request(over)))).id;

  beforeEach(async () => {
    it_ = await make();
  });

  afterEach(async () => {
    for (const { id } of await it_.engine.list({ [mark]: `${process.pid}` })) {
      await it_.until(it_.engine.remove(id));
    }
    for (const { name } of await it_.engine.listNetworks({ [mark]: `${process.pid}` })) {
      await it_.engine.removeNetwork(name);
    }
  });

  it('describes itself', async () => {
    const description = await it_.engine.describe();
    assert.notEqual(description.engineId, '');
    assert.ok(description.nanoCpus >= 1e9);
    assert.ok(description.memoryBytes > 0);
    const { info, version } = await it_.engine.facts();
    assert.equal(info.ID, description.engineId);
    assert.equal(typeof version.ApiVersion, 'string');
  });

  it('lets requests through as they are, where it has an API of its own', async () => {
    const connection = await it_.engine.connect().catch((error: unknown) => {
      assert.ok(isShoalError(error, 'not-supported'), String(error));
      return undefined;
    });
    if (!connection) return;
    connection.end('GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    let text = '';
    for await (const chunk of connection) text += String(chunk);
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*OK$/);
  });

  it('takes a container through its life', async () => {
    const { engine } = it_;
    await it_.until(engine.pull(it_.image, undefined, new AbortController().signal));
    const id = await made();
    assert.equal((await engine.inspect(id)).phase, 'created');
    await it_.until(engine.start(id));
    const running = await engine.inspect(id);
    assert.equal(running.phase, 'running');
    assert.ok(running.pid > 0);
    assert.deepEqual(running.labels, { [mark]: `${process.pid}` });
    await it_.until(engine.start(id));
    await it_.until(engine.stop(id, 1_000));
    const stopped = await engine.inspect(id);
    assert.equal(stopped.phase, 'exited');
    assert.equal(stopped.pid, 0);
    await it_.until(engine.remove(id));
    await assert.rejects(engine.inspect(id), (error) => isShoalError(error, 'not-found'));
  });

  it('signals what runs, and says when nothing does', async () => {
    const { engine } = it_;
    const id = await made();
    await assert.rejects(it_.until(engine.signal(id, 'SIGHUP')), (error) =>
      isShoalError(error, 'already-exists'),
    );
    await it_.until(engine.start(id));
    await it_.until(engine.signal(id, 'SIGCONT'));
    assert.equal((await engine.inspect(id)).phase, 'running');
    await assert.rejects(it_.until(engine.signal('no-such-container', 'SIGHUP')), (error) =>
      isShoalError(error, 'not-found'),
    );
  });

  it('keeps the exit code', async () => {
    const { engine } = it_;
    const id = await made(it_.failing);
    let exited = false;
    const abort = new AbortController();
    engine.watch((event) => {
      exited ||= event.kind === 'container' && event.containerId === id && event.action === 'die';
    }, abort.signal);
    await it_.until(engine.start(id));
    await it_.waitFor(() => exited);
    abort.abort();
    const state = await engine.inspect(id);
    assert.equal(state.phase, 'exited');
    assert.equal(state.exitCode, 3);
  });

  it('says why a container cannot be started', async () => {
    const id = await made(it_.broken);
    await assert.rejects(it_.until(it_.engine.start(id)), (error) => isShoalError(error, 'invalid-argument'));
  });

  it('refuses a second container of the same name', async () => {
    const first = request();
    await it_.until(it_.engine.create(first));
    await assert.rejects(it_.until(it_.engine.create(first)), (error) =>
      isShoalError(error, 'already-exists'),
    );
  });

  it('knows no container and no image that is not there', async () => {
    const { engine } = it_;
    const notFound = (error: unknown) => isShoalError(error, 'not-found');
    const signal = new AbortController().signal;
    await assert.rejects(it_.until(engine.pull(it_.missingImage, undefined, signal)), notFound);
    await assert.rejects(it_.until(engine.create(request({ image: it_.missingImage }))), notFound);
    await assert.rejects(engine.inspect('no-such-container'), notFound);
    await assert.rejects(it_.until(engine.start('no-such-container')), notFound);
    await assert.rejects(it_.until(engine.stop('no-such-container', 0)), notFound);
    await assert.rejects(it_.until(engine.remove('no-such-container')), notFound);
  });

  it('lists by labels', async () => {
    const id = await made({ labels: { [mark]: `${process.pid}`, colour: 'red' } });
    await made({ labels: { [mark]: `${process.pid}`, colour: 'blue' } });
    const found = await it_.engine.list({ [mark]: `${process.pid}`, colour: 'red' });
    assert.deepEqual(
      found.map((state) => state.id),
      [id],
    );
  });

  it('tells of starts and ends, and that it is there', async () => {
    const { engine } = it_;
    const events: EngineEvent[] = [];
    const abort = new AbortController();
    engine.watch((event) => events.push(event), abort.signal);
    await it_.waitFor(() => events.length > 0);
    assert.deepEqual(events[0], { kind: 'engine-back' });
    const id = await made();
    const actions = () =>
      events.flatMap((event) => (event.kind === 'container' && event.containerId === id ? event.action : []));
    await it_.until(engine.start(id));
    await it_.until(engine.stop(id, 0));
    await it_.until(engine.remove(id));
    await it_.waitFor(() => actions().includes('destroy'));
    assert.deepEqual(actions(), ['start', 'die', 'destroy']);
    abort.abort();
    const count = events.length;
    await it_.until(engine.start(await made()));
    assert.equal(events.length, count);
  });

  it('reads logs, past and to come', async () => {
    const { engine } = it_;
    const id = await made();
    await it_.until(engine.start(id));
    it_.speak?.(id);
    const lines: string[] = [];
    const abort = new AbortController();
    const options = { stdout: true, stderr: true, follow: true };
    const reading = (async () => {
      for await (const line of engine.logs(id, options, abort.signal)) {
        assert.match(line.timestamp, /^\d{4}-\d\d-\d\dT.*Z$/);
        lines.push(`${line.stream} ${Buffer.from(line.data).toString()}`);
      }
    })();
    await it_.waitFor(() => lines.length > 0);
    assert.deepEqual(lines, ['stdout hello\n']);
    await it_.until(engine.stop(id, 0));
    await it_.until(reading);
    const again: string[] = [];
    const read = async (tail: number) => {
      for await (const line of engine.logs(id, { ...options, follow: false, tail }, abort.signal)) {
        again.push(Buffer.from(line.data).toString());
      }
    };
    await it_.until(read(0));
    assert.deepEqual(again, []);
    await it_.until(read(5));
    assert.deepEqual(again, ['hello\n']);
  });

  it('ends following when it is told to', async () => {
    const { engine } = it_;
    const id = await made();
    await it_.until(engine.start(id));
    it_.speak?.(id);
    const abort = new AbortController();
    let count = 0;
    const reading = (async () => {
      const options = { stdout: true, stderr: false, follow: true };
      for await (const _line of engine.logs(id, options, abort.signal)) count += 1;
    })();
    await it_.waitFor(() => count > 0);
    abort.abort();
    await it_.until(reading);
    assert.equal(count, 1);
  });

  it('runs a command in a running container, with its input to the end, and tells its exit status', async () => {
    const { engine } = it_;
    const id = await made();
    await assert.rejects(it_.until(engine.execs.make(id, execOf('echo'))), isCode('already-exists'));
    await it_.until(engine.start(id));
    const output = async (execId: string, input: string): Promise<Buffer> => {
      const stream = await engine.execs.start(execId, false);
      stream.end(input);
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks);
    };
    const frame = (text: string) =>
      Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 0, text.length]), Buffer.from(text)]);
    const echo = await it_.until(engine.execs.make(id, execOf('echo', 'a', 'b')));
    assert.deepEqual(await it_.until(output(echo, '')), frame('a b\n'));
    assert.deepEqual(await it_.until(engine.execs.inspect(echo)), { isRunning: false, exitCode: 0 });
    const cat = await it_.until(engine.execs.make(id, { ...execOf('cat'), stdin: true }));
    assert.deepEqual(await it_.until(output(cat, 'hello')), frame('hello'));
    const missing = await it_.until(engine.execs.make(id, execOf('nosuchprogram')));
    await it_.until(output(missing, ''));
    assert.ok([126, 127].includes((await it_.until(engine.execs.inspect(missing))).exitCode));
    await assert.rejects(it_.until(engine.execs.start('nosuchexec', false)), isCode('not-found'));
  });

  it('tells how health is checked, so that a check can be run by hand', async () => {
    const { engine } = it_;
    const checked = async (...Test: string[]) => {
      const Healthcheck = { Test, Interval: 3_600e9, Timeout: 7e9 };
      const id = await made({ config: { ...it_.lasting, Healthcheck } });
      await it_.until(engine.start(id));
      const { healthCheck } = await it_.until(engine.inspect(id));
      return {
        healthCheck: healthCheck!,
        run: () => runHealthCheck(engine.execs, id, healthCheck!, realClock),
      };
    };
    const well = await checked('CMD', 'echo', 'all', 'well');
    const { hasStartInterval, ...told } = well.healthCheck;
    assert.deepEqual(
      [told, hasStartInterval],
      [{ command: ['echo', 'all', 'well'], timeoutMs: 7_000 }, false],
    );
    assert.deepEqual(await it_.until(well.run()), { hasPassed: true, output: 'all well' });
    const shell = await checked('CMD-SHELL', 'exit 4');
    assert.deepEqual(shell.healthCheck.command, ['/bin/sh', '-c', 'exit 4']);
    assert.equal((await it_.until(shell.run())).hasPassed, false);
    const none = await made({ config: { ...it_.lasting, Healthcheck: { Test: ['NONE'] } } });
    await it_.until(engine.start(none));
    assert.equal((await it_.until(engine.inspect(none))).healthCheck, undefined);
  });

  it('makes a network once, also for two that ask at the same time, and keeps one in use', async () => {
    const { engine } = it_;
    const network = {
      name: `shoal-compliance-${process.pid}`,
      labels: { [mark]: `${process.pid}` },
      subnets: [{ subnet: '10.213.77.0/24', gateway: '10.213.77.1' }],
      internal: false,
      options: {},
    };
    const ids = await it_.until(Promise.all([engine.ensureNetwork(network), engine.ensureNetwork(network)]));
    assert.equal(ids[0], ids[1]);
    assert.equal(await it_.until(engine.ensureNetwork(network)), ids[0]);
    assert.deepEqual(await engine.listNetworks(network.labels), [
      { name: network.name, labels: network.labels },
    ]);
    const id = await made({
      config: {
        ...it_.lasting,
        HostConfig: { NetworkMode: network.name },
        NetworkingConfig: {
          EndpointsConfig: { [network.name]: { IPAMConfig: { IPv4Address: '10.213.77.9' } } },
        },
      },
    });
    assert.equal(await engine.removeNetwork(network.name), false);
    await it_.until(engine.start(id));
    assert.equal(await engine.removeNetwork(network.name), false);
    await it_.until(engine.remove(id));
    assert.equal(await engine.removeNetwork(network.name), true);
    assert.equal(await engine.removeNetwork(network.name), true);
    assert.deepEqual(await engine.listNetworks(network.labels), []);
  });
}
