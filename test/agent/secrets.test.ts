import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileJournal } from '../../agent/journal.ts';
import { MemoryFolder, type Payloads, planFiles } from '../../agent/secrets.ts';
import { silentLog } from '../../proto/ports.ts';
import { startNode, wireTask } from './node.ts';

const tmpfs = 0x01021994;
const host = { id: 'node1', hostname: 'alpha', architecture: 'x86_64', os: 'linux' };
const payloads: Payloads = {
  secret: (id) => (id === 's1' ? { id, spec: { data: Buffer.from('hush') } } : undefined),
  config: (id) =>
    id === 'c1'
      ? {
          id,
          spec: { data: Buffer.from('a={{secret "key"}} e={{env "E"}}'), templating: { name: 'golang' } },
        }
      : undefined,
};
const withFiles = (over: Record<string, unknown> = {}) =>
  wireTask('t1', 'web:1', {
    spec: {
      container: {
        image: 'web:1',
        env: ['E=1'],
        secrets: [
          { secret_id: 's1', secret_name: 'n', file: { name: 'key', uid: '7', gid: '8', mode: 0o400 } },
        ],
        configs: [{ config_id: 'c1', config_name: 'c', file: { name: 'etc.conf' } }],
        ...over,
      },
    },
  });

describe('files of secrets and configs', () => {
  it('go where Docker puts them, with their owner and mode', () => {
    const files = planFiles(withFiles(), host, payloads);
    assert.deepEqual(
      files.map(({ data, ...file }) => ({ ...file, text: Buffer.from(data).toString() })),
      [
        { target: '/run/secrets/key', uid: 7, gid: 8, mode: 0o400, text: 'hush' },
        { target: '/etc.conf', uid: 0, gid: 0, mode: 0o444, text: 'a=hush e=1' },
      ],
    );
    const absolute = withFiles({ configs: [], secrets: [{ secret_id: 's1', file: { name: '/etc/key' } }] });
    assert.equal(planFiles(absolute, host, payloads)[0]!.target, '/etc/key');
  });

  it('are refused when the managers did not send them', () => {
    const task = withFiles({ secrets: [{ secret_id: 'other', secret_name: 'pw' }] });
    assert.throws(() => planFiles(task, host, payloads), /secret pw is not available on this node/);
  });

  it('are written to memory only and leave with the task', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    const folder = mkdtempSync(join(tmpdir(), 'shoal-files-'));
    const files = new MemoryFolder(join(folder, 'files'));
    try {
      const [mount] = await files.write('t1', [
        { target: '/run/secrets/key', data: Buffer.from('hush'), uid: 7, gid: 8, mode: 0o400 },
      ]);
      const { mode, uid, gid } = statSync(mount!.source);
      assert.deepEqual([mode & 0o7777, uid, gid], [0o400, 7, 8]);
      assert.equal(statSync(join(folder, 'files/t1')).mode & 0o7777, 0o700);
      assert.equal((await statfs(mount!.source)).type, tmpfs);
      assert.equal(readFileSync(mount!.source, 'utf8'), 'hush');
      assert.deepEqual(await files.list(), ['t1']);
      await files.remove('t1');
      assert.deepEqual(await files.list(), []);
    } finally {
      await files.clear();
      assert.equal(existsSync(join(folder, 'files')), false);
      rmSync(folder, { recursive: true });
    }
  });

  it('reach the task, and never its journal', async () => {
    const node = await startNode();
    const task = withFiles({ pull_options: { registry_auth: 'credential' } });
    node.managers.assign(
      task,
      { action: 'UPDATE', assignment: { secret: { id: 's1', spec: { data: Buffer.from('hush') } } } },
      { action: 'UPDATE', assignment: { config: { id: 'c1', spec: { data: Buffer.from('conf') } } } },
    );
    await node.untilState('t1', 'RUNNING');
    assert.equal(Buffer.from(node.files.files.get('t1')![0]!.data).toString(), 'hush');
    assert.doesNotMatch(JSON.stringify([...node.journal.tasks]), /hush|aHVzaA|credential/);
    node.managers.unassign('t1');
    await node.clock.run(1_000);
    assert.deepEqual(await node.files.list(), []);
  });
});

describe('rotation of secrets and configs', () => {
  const rotated = (label: string, secret: string) => ({
    ...withFiles({ configs: [], secrets: [{ secret_id: secret, secret_name: 'n', file: { name: 'key' } }] }),
    service_annotations: { name: 'web', labels: { 'shoal.rotate': label } },
  });
  const secret = (id: string, text: string) =>
    ({ action: 'UPDATE', assignment: { secret: { id, spec: { data: Buffer.from(text) } } } }) as const;

  it('writes the new version where the file is and signals the container, which goes on', async () => {
    const node = await startNode();
    node.managers.assign(rotated('signal:SIGUSR1', 's1'), secret('s1', 'old'));
    await node.untilState('t1', 'RUNNING');
    const [before] = await node.engine.list({});
    node.managers.assign(rotated('signal:SIGUSR1', 's2'), secret('s2', 'new'));
    await node.until(() => node.engine.signals.length === 1);
    assert.deepEqual(node.engine.signals, [{ containerId: before!.id, signal: 'SIGUSR1' }]);
    assert.equal(Buffer.from(node.files.files.get('t1')![0]!.data).toString(), 'new');
    await node.until(() => node.managers.last('t1')!.message === 'files renewed, SIGUSR1 sent');
    node.managers.assign(rotated('signal:SIGUSR1', 's2'), secret('s2', 'new'));
    await node.clock.run(1_000);
    assert.equal(node.engine.signals.length, 1, 'the same again is no new version');
    const [after] = await node.engine.list({});
    assert.equal(after!.pid, before!.pid);
  });

  it('that came while the daemon was away is carried out when it is back', async () => {
    const node = await startNode();
    node.managers.assign(rotated('signal:SIGHUP', 's1'), secret('s1', 'old'));
    await node.untilState('t1', 'RUNNING');
    await node.restart();
    node.managers.assign(rotated('signal:SIGHUP', 's2'), secret('s2', 'new'));
    await node.until(() => node.engine.signals.length === 1);
    assert.equal(Buffer.from(node.files.files.get('t1')![0]!.data).toString(), 'new');
  });

  it('keeps the file that the container sees', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    const folder = mkdtempSync('/dev/shm/shoal-rotation-');
    const files = new MemoryFolder(folder);
    const planned = (text: string) => [
      { target: '/run/secrets/key', data: Buffer.from(text), uid: 0, gid: 0, mode: 0o444 },
    ];
    const [mount] = await files.write('t1', planned('a long one'));
    const inode = statSync(mount!.source).ino;
    await files.rewrite('t1', planned('short'));
    assert.equal(readFileSync(mount!.source, 'utf8'), 'short');
    assert.deepEqual([statSync(mount!.source).ino, statSync(mount!.source).mode & 0o777], [inode, 0o444]);
    rmSync(folder, { recursive: true });
  });
});

describe('journal on disk', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-journal-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('keeps the newest of each task and drops what is gone', async () => {
    const journal = new FileJournal(join(folder, 'agent'), silentLog);
    await journal.load();
    const status = { state: 'preparing', message: 'preparing', err: '', atMs: 1 } as const;
    const profile = Buffer.from('{"seccomp":1}');
    const task = wireTask('t1', 'web:1', {
      spec: {
        container: {
          image: 'web:1',
          pull_options: { registry_auth: 'credential' },
          privileges: { seccomp: { mode: 'CUSTOM', profile } },
        },
      },
    });
    journal.put({ task, status });
    journal.put({ task, status: { ...status, state: 'running' } });
    journal.put({ task: wireTask('t2'), status });
    journal.drop('t2');
    journal.putManagers([{ nodeId: 'm', address: 'm:1', weight: 1 }]);
    journal.putHeard({ atMs: 12.5, periodMs: 1_000 });
    await journal.flush();
    assert.deepEqual(readdirSync(join(folder, 'agent/tasks')), ['t1.json']);
    assert.doesNotMatch(readFileSync(join(folder, 'agent/tasks/t1.json'), 'utf8'), /credential/);
    const read = await new FileJournal(join(folder, 'agent'), silentLog).load();
    assert.equal(read.tasks[0]!.status.state, 'running');
    assert.deepEqual(read.tasks[0]!.task.spec?.container?.privileges?.seccomp?.profile, profile);
    assert.deepEqual(read.managers, [{ nodeId: 'm', address: 'm:1', weight: 1 }]);
    assert.deepEqual(read.heard, { atMs: 12.5, periodMs: 1_000 });
    await journal.clear();
    assert.equal(existsSync(join(folder, 'agent')), false);
  });
});
