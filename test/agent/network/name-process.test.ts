import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import packet from 'dns-packet';
import { NameProcess } from '../../../agent/network/name-process.ts';
import { NameServer } from '../../../agent/network/name-server.ts';
import { sendLine } from '../../../agent/network/name-wire.ts';
import { realClock } from '../../../cli/runtime.ts';
import { type Log, silentLog } from '../../../proto/ports.ts';
import { repositoryRoot, waitFor } from '../../lab/lab.ts';
import { desired, endpoint, network, service } from './desired-objects.ts';

const program = [process.execPath, join(repositoryRoot, 'dist/cli/shoal-names.js')];
const boundMs = 30_000;
const gateway = '127.0.0.95';
const front = 'net4097';

function state(address: string) {
  return desired(
    [network(4097, { gateways: [`${gateway}/24`] })],
    [
      service('web', {
        networks: [{ networkId: front, virtualAddresses: [], aliases: [] }],
        endpoints: [endpoint(front, address)],
      }),
    ],
  );
}

/** The addresses of `web`; rejects where nobody answers. */
async function webs(): Promise<unknown[]> {
  const socket = createSocket('udp4');
  try {
    socket.connect(53, gateway);
    await once(socket, 'connect');
    socket.send(packet.encode({ type: 'query', id: 7, questions: [{ type: 'A', name: 'web' }], flags: 256 }));
    const [answer] = (await once(socket, 'message')) as [Buffer];
    return packet.decode(answer).answers?.map((one) => 'data' in one && one.data) ?? [];
  } finally {
    socket.close();
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe('a process that answers names', function () {
  this.timeout(60_000);
  let folder: string;
  /** Processes that were started, the newest last. */
  let started: number[];
  let lost: number;
  let made: NameProcess[];

  const log: Log = {
    ...silentLog,
    info: (fields) => typeof fields.process === 'number' && started.push(fields.process),
  };

  function agent(version = '1'): NameProcess {
    const onLost = () => {
      lost += 1;
    };
    const one = new NameProcess({ program, folder, version, clock: realClock, log, onLost });
    made.push(one);
    return one;
  }

  before(function () {
    if (process.getuid?.() !== 0) this.skip();
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'shoal-names-'));
    started = [];
    made = [];
    lost = 0;
  });

  afterEach(async () => {
    for (const one of made) one.stop();
    await agent().end();
    await rm(folder, { recursive: true, force: true });
    await waitFor('no process to be left', boundMs, () => !started.some(isAlive));
  });

  it('goes on while there is no agent; the next one takes it over and tells it what is new', async () => {
    const first = agent();
    await first.know(state('10.60.1.10'));
    assert.deepEqual(await first.listen(state('10.60.1.10')), []);
    assert.deepEqual(await webs(), ['10.60.1.10']);
    first.stop();
    assert.deepEqual(await webs(), ['10.60.1.10']);
    const second = agent();
    await second.know(state('10.60.1.11'));
    assert.deepEqual(await second.listen(state('10.60.1.11')), []);
    assert.deepEqual(await webs(), ['10.60.1.11']);
    assert.equal(started.length, 1);
  });

  it('is told what changes, and answers from that when its agent hears so', async () => {
    const one = agent();
    const base = state('10.60.1.10');
    await one.know(base);
    await one.listen(base);
    for (let last = 11; last < 31; last += 1) {
      const update = {
        revision: String(last),
        services: [
          {
            id: base.services[0]!.id,
            name: 'web',
            networks: [{ network_id: front }],
            endpoints: [{ task_id: 't', node_id: 'n2', addresses: { [front]: `10.60.1.${last}` } }],
          },
        ],
      };
      await one.know({ ...base, revision: String(last) }, update);
      assert.deepEqual(await webs(), [`10.60.1.${last}`]);
    }
  });

  it('of another version is replaced', async () => {
    const first = agent('1');
    await first.know(state('10.60.1.10'));
    await first.listen(state('10.60.1.10'));
    first.stop();
    const second = agent('2');
    await second.know(state('10.60.1.11'));
    assert.deepEqual(await second.listen(state('10.60.1.11')), []);
    assert.deepEqual(await webs(), ['10.60.1.11']);
    assert.equal(started.length, 2);
    await waitFor('the one before to be gone', boundMs, () => !isAlive(started[0]!));
    assert.equal(lost, 0);
    assert.equal((await readdir(folder)).length, 1);
  });

  it('that was killed is told of, and another one is started', async () => {
    const one = agent();
    await one.know(state('10.60.1.10'));
    await one.listen(state('10.60.1.10'));
    process.kill(started[0]!, 'SIGKILL');
    await waitFor('the loss to be told', boundMs, () => lost === 1);
    assert.deepEqual(await one.listen(state('10.60.1.10')), []);
    assert.deepEqual(await webs(), ['10.60.1.10']);
    assert.equal(started.length, 2);
  });

  it('that ends with words unread is told of like any other', async () => {
    const path = join(folder, 'names-1.sock');
    const accepted: Socket[] = [];
    // It reads nothing: its end, with words of ours before it, is a reset of the connection and not just its end.
    const deaf = createServer({ pauseOnConnect: true }, (socket) => {
      accepted.push(socket);
      sendLine(socket, { kind: 'hello', version: '1', pid: 0 });
    });
    await once(deaf.listen(path), 'listening');
    const one = agent();
    await one.know(state('10.60.1.10'));
    const listening = one.listen(state('10.60.1.10'));
    await waitFor('words that nobody reads', boundMs, () => (accepted[0]?.bytesWritten ?? 0) > 0);
    deaf.close();
    accepted[0]!.destroy();
    assert.match((await listening).join(), /names are not answered: .* has ended/);
    assert.deepEqual(await one.listen(state('10.60.1.10')), []);
    assert.deepEqual(await webs(), ['10.60.1.10']);
  });

  it('that is on its way out while it is connected to is not waited for', async () => {
    const path = join(folder, 'names-1.sock');
    const leaving = createServer((socket) => {
      socket.destroy();
      leaving.close();
    });
    await once(leaving.listen(path), 'listening');
    const one = agent();
    await one.know(state('10.60.1.10'));
    assert.deepEqual(await one.listen(state('10.60.1.10')), []);
    assert.deepEqual(await webs(), ['10.60.1.10']);
  });

  it('ends when there are no networks any more, and leaves nothing', async () => {
    const one = agent();
    await one.know(state('10.60.1.10'));
    await one.listen(state('10.60.1.10'));
    assert.deepEqual(await one.listen(desired([], [])), []);
    assert.deepEqual(await readdir(folder), []);
    await assert.rejects(webs());
    await waitFor('it to be gone', boundMs, () => !isAlive(started[0]!));
    assert.equal(lost, 0);
  });

  it('tells what it can’t listen on, and why a program can’t be started', async () => {
    const elsewhere = desired([network(4097, { gateways: ['192.0.2.77/24'] })], []);
    const one = agent();
    await one.know(elsewhere);
    assert.match((await one.listen(elsewhere)).join(), /192\.0\.2\.77 port 53: .*EADDRNOTAVAIL/);
    const broken = new NameProcess({
      ...{ folder: join(folder, 'other'), version: '1', clock: realClock, log: silentLog, onLost() {} },
      program: [join(folder, 'missing')],
    });
    assert.match((await broken.listen(elsewhere)).join(), /names are not answered: .*ENOENT/);
  });

  for (const [what, lose] of [
    ['its socket’s file', (path: string) => rm(path)],
    ['the addresses that it answers on', async () => {}],
  ] as const) {
    it(`ends by itself when no agent is there and ${what} is gone`, async () => {
      const path = join(folder, 'names-1.sock');
      let ended = 0;
      let addresses = [gateway];
      const server = new NameServer({
        ...{ path, version: '1', clock: realClock, lookEveryMs: 20, addresses: () => addresses },
        onEnd: () => {
          ended += 1;
        },
      });
      await server.start();
      const one = agent();
      await one.know(state('10.60.1.10'));
      assert.deepEqual(await one.listen(state('10.60.1.10')), []);
      if (what.startsWith('its')) await lose(path);
      else addresses = [];
      assert.deepEqual(await webs(), ['10.60.1.10']);
      assert.equal(ended, 0);
      one.stop();
      await waitFor('its end', boundMs, () => ended === 1);
      assert.ok(!existsSync(path));
      await assert.rejects(webs());
    });
  }
});
