/** Backups of a cluster in every state it may be in, and what goes on from them, with daemons on real ports and disks. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Daemon } from '../../cli/daemon.ts';
import { realClock, realRandom } from '../../cli/runtime.ts';
import { newBackupKey, openBackup } from '../../manager/backup/backup.ts';
import { beginRotation } from '../../manager/ca/rotation.ts';
import { rehearse } from '../../manager/rehearsal.ts';
import { isShoalError } from '../../proto/errors.ts';
import type { ConfigId, NodeId } from '../../proto/ids.ts';
import { newId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { waitFor } from '../agent/wait.ts';
import { freePort, runProgram } from './daemon.ts';
import { clusterOf, Hosts } from './hosts.ts';

const boundMs = 60_000;
const programs = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'cli');
const run = promisify(execFile);

describe('a backup', function () {
  this.timeout(300_000);
  const hosts = new Hosts();
  const key = newBackupKey(realRandom);

  afterEach(async () => {
    for (const port of [...hosts.running.keys()]) await hosts.stop(port);
    assert.deepEqual(hosts.failures, []);
  });
  after(() => hosts.close());

  const started = async (): Promise<{ port: number; daemon: Daemon; address: string }> => {
    const port = await freePort();
    return { port, daemon: await hosts.start(port), address: `127.0.0.1:${port}` };
  };
  const leads = (daemon: Daemon) =>
    waitFor(
      () => daemon.membership().kind === 'manager' && clusterOf(daemon).isLeader(),
      boundMs,
      'it leads',
    );
  const storeOf = (daemon: Daemon) => clusterOf(daemon).store;
  const tokens = (daemon: Daemon) => storeOf(daemon).cluster()!.JoinTokens;
  const idOf = (daemon: Daemon): NodeId => {
    const membership = daemon.membership();
    return membership.kind === 'manager'
      ? membership.cluster.nodeId
      : (membership as { nodeId: NodeId }).nodeId;
  };
  const isReady = (by: Daemon, nodeId: NodeId) =>
    waitFor(() => storeOf(by).get('node', nodeId)?.Status.State === 'ready', boundMs, `${nodeId} is ready`);
  const addConfig = (daemon: Daemon, Name: string) => {
    const object = {
      ID: newId<ConfigId>(realRandom),
      Version: { Index: 0 },
      CreatedAt: '',
      UpdatedAt: '',
      Spec: { Name, Labels: {}, Data: 'eA==' },
    };
    return clusterOf(daemon).propose([{ op: 'create', kind: 'config', object }]);
  };
  const configs = (daemon: Daemon) =>
    storeOf(daemon)
      .list('config')
      .map(({ Spec }) => Spec.Name);
  const taken = async (daemon: Daemon): Promise<Buffer> => buffer(await clusterOf(daemon).backup(key));
  /** On a fresh host at another address. */
  const restored = async (file: Buffer, under = key) => {
    const host = await started();
    await host.daemon.restore({
      file,
      key: under,
      AdvertiseAddr: host.address,
      Availability: 'drain',
      awaitNodesMs: 600_000,
    });
    await leads(host.daemon);
    return host;
  };
  const joined = async (to: { daemon: Daemon; address: string }, role: 'Worker' | 'Manager') => {
    const host = await started();
    await host.daemon.join({ RemoteAddrs: [to.address], JoinToken: tokens(to.daemon)[role] });
    const nodeId = idOf(host.daemon);
    await isReady(to.daemon, nodeId);
    const status = () => storeOf(to.daemon).get('node', nodeId)?.ManagerStatus?.Reachability;
    if (role === 'Manager') await waitFor(() => status() === 'reachable', boundMs, 'it has its vote');
    return host;
  };
  /** What the restore's `swarm join` does on a worker that has lost its managers. */
  const toldOf = (worker: { daemon: Daemon }, manager: { daemon: Daemon; address: string }) =>
    worker.daemon.join({ RemoteAddrs: [manager.address], JoinToken: tokens(manager.daemon).Worker });
  const rotate = async (daemon: Daemon) => {
    const begun = await beginRotation(storeOf(daemon).cluster()!, {
      now: realClock.now(),
      random: realRandom,
    });
    await clusterOf(daemon).propose([{ op: 'update', kind: 'cluster', object: begun }]);
  };
  const isRotating = (daemon: Daemon) => storeOf(daemon).cluster()!.RootRotationInProgress;
  const issuerOf = (by: Daemon, nodeId: NodeId) =>
    storeOf(by).get('node', nodeId)?.Description.TLSInfo.CertIssuerPublicKey;

  const makeCluster = async (request: Parameters<Daemon['init']>[0] = {}) => {
    const manager = await started();
    await manager.daemon.init(request);
    await leads(manager.daemon);
    return manager;
  };

  it('of a follower holds what was acknowledged before; what goes on from it can be recovered by force', async () => {
    const manager = await makeCluster();
    const follower = await joined(manager, 'Manager');
    const worker = await joined(manager, 'Worker');
    const nodeId = idOf(worker.daemon);
    for (let number = 1; number <= 20; number += 1) await addConfig(manager.daemon, `c${number}`);
    const file = await taken(follower.daemon);
    const before = configs(manager.daemon);
    await addConfig(manager.daemon, 'later');
    for (const { port } of [follower, manager]) await hosts.stop(port);

    const first = await restored(file);
    assert.deepEqual(configs(first.daemon), before);
    await toldOf(worker, first);
    await isReady(first.daemon, nodeId);
    assert.equal(idOf(worker.daemon), nodeId);
    const second = await joined(first, 'Manager');
    await addConfig(first.daemon, 'after');
    await waitFor(() => configs(second.daemon).includes('after'), boundMs, 'the second one has the state');
    await hosts.stop(first.port);
    await second.daemon.init({ ForceNewCluster: true });
    await leads(second.daemon);
    assert.deepEqual(configs(second.daemon), [...before, 'after']);
    await isReady(second.daemon, nodeId);
  });

  it('of a cluster with autolock opens with the unlock key of its time, and so does the manager that it makes', async () => {
    const manager = await makeCluster({ AutoLockManagers: true });
    await addConfig(manager.daemon, 'kept');
    const { UnlockKey } = storeOf(manager.daemon).cluster()!.Private;
    const file = await buffer(await clusterOf(manager.daemon).backup(undefined));
    const cluster = storeOf(manager.daemon).cluster()!;
    const later = `SWMKEY-1-${Buffer.alloc(32, 7).toString('base64').replace(/=+$/, '')}`;
    const Private = { ...cluster.Private, UnlockKey: later };
    await clusterOf(manager.daemon).propose([
      { op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Private } },
    ]);
    await assert.rejects(
      openBackup(file, later),
      /does not open the backup: it is sealed under the unlock key that the cluster had on/,
    );

    // A locked manager lets nobody write over what it holds.
    await hosts.stop(manager.port);
    const again = await hosts.start(manager.port);
    assert.equal(again.membership().kind, 'locked');
    const request = { file, key: UnlockKey!, Availability: 'drain', awaitNodesMs: 1 } as const;
    const isLocked = (error: unknown) => isShoalError(error, 'locked');
    await assert.rejects(again.restore(request), isLocked);
    await assert.rejects(again.init({}), isLocked);
    await assert.rejects(again.init({ ForceNewCluster: true }), isLocked);
    await hosts.stop(manager.port);

    const other = await started();
    await assert.rejects(other.daemon.restore({ ...request, key: later }), /does not open the backup/);
    assert.equal(other.daemon.membership().kind, 'none', 'it is outside as before');
    const rehearsed = await rehearse(await openBackup(file, UnlockKey!), {
      clock: realClock,
      random: realRandom,
      log: silentLog,
    });
    assert.deepEqual([rehearsed.faults, rehearsed.isLocking], [[], true]);
    const first = await restored(file, UnlockKey);
    assert.deepEqual(configs(first.daemon), ['kept']);
    await hosts.stop(first.port);
    const restarted = await hosts.start(first.port);
    assert.equal(restarted.membership().kind, 'locked');
    await assert.rejects(restarted.unlock(later), /invalid key/);
    await restarted.unlock(UnlockKey!);
    await leads(restarted);
    assert.deepEqual(configs(restarted), ['kept']);
  });

  it('taken while the root is replaced goes on with that, and the workers follow', async () => {
    const manager = await makeCluster();
    const away = await joined(manager, 'Manager');
    const worker = await joined(manager, 'Worker');
    const nodeId = idOf(worker.daemon);
    // A manager that is away is waited for, however long.
    const before = storeOf(manager.daemon).cluster()!.TLSInfo;
    const awayId = idOf(away.daemon);
    const third = await joined(manager, 'Manager');
    await hosts.stop(away.port);
    await rotate(manager.daemon);
    const issuer = storeOf(manager.daemon).cluster()!.TLSInfo.CertIssuerPublicKey;
    await waitFor(() => issuerOf(manager.daemon, nodeId) === issuer, boundMs, 'the worker has followed');
    const file = await taken(manager.daemon);
    assert.equal(isRotating(manager.daemon), true);
    assert.notEqual(issuerOf(manager.daemon, awayId), issuer);
    for (const { port } of [third, manager]) await hosts.stop(port);

    const first = await restored(file);
    await waitFor(() => !isRotating(first.daemon), boundMs, 'the root is replaced');
    assert.notEqual(storeOf(first.daemon).cluster()!.TLSInfo.TrustRoot, before.TrustRoot);
    // It trusts the root of before still, which the present one leads to.
    await toldOf(worker, first);
    await isReady(first.daemon, nodeId);
    const trusts = () => storeOf(first.daemon).get('node', nodeId)?.Description.TLSInfo.TrustRoot;
    const { TrustRoot } = storeOf(first.daemon).cluster()!.TLSInfo;
    await waitFor(() => trusts() === TrustRoot, boundMs, 'it trusts the present root');
    await joined(first, 'Manager');
  });

  it('from before a replacement of the root: who followed that is told to join anew, and can', async () => {
    const manager = await makeCluster();
    const worker = await joined(manager, 'Worker');
    const nodeId = idOf(worker.daemon);
    const file = await taken(manager.daemon);
    await rotate(manager.daemon);
    await waitFor(() => !isRotating(manager.daemon), boundMs, 'the root is replaced');
    const { TrustRoot } = storeOf(manager.daemon).cluster()!.TLSInfo;
    const trusts = () => storeOf(manager.daemon).get('node', nodeId)?.Description.TLSInfo.TrustRoot;
    await waitFor(() => trusts() === TrustRoot, boundMs, 'the worker has followed');
    await hosts.stop(manager.port);

    const first = await restored(file);
    await assert.rejects(
      toldOf(worker, first),
      /already part of a swarm.*backup from before that root was made.*swarm leave --force/,
    );
    assert.equal(idOf(worker.daemon), nodeId, 'it is what it was');
    await worker.daemon.leave(true);
    await toldOf(worker, first);
    await isReady(first.daemon, idOf(worker.daemon));
  });

  describe('as a file', () => {
    let folder: string;
    let file: string;
    let keyFile: string;

    before(async () => {
      folder = join(hosts.folder, 'files');
      mkdirSync(folder);
      file = join(folder, 'cluster.backup');
      keyFile = join(folder, 'key');
      const manager = await makeCluster();
      await addConfig(manager.daemon, 'kept');
      writeFileSync(file, await taken(manager.daemon), { mode: 0o400 });
      writeFileSync(keyFile, key, { mode: 0o400 });
    });

    it('is rehearsed without a file written, a port opened or anyone asked', async () => {
      const forbidden = join(folder, 'no-network.mjs');
      // Both stand before every use of the network: a server's port, and a connection to anyone.
      writeFileSync(
        forbidden,
        `import dgram from 'node:dgram';
import net from 'node:net';
const refuse = () => { throw new Error('the network was used'); };
net.Server.prototype.listen = refuse;
net.Socket.prototype.connect = refuse;
dgram.Socket.prototype.bind = refuse;
dgram.Socket.prototype.send = refuse;
`,
      );
      const before = [readdirSync(folder).sort(), readFileSync(file), statSync(file).mtimeMs];
      const permission = process.allowedNodeEnvironmentFlags.has('--permission')
        ? '--permission'
        : '--experimental-permission';
      const verify = async (...more: string[]) =>
        run(
          process.execPath,
          [
            ...[permission, '--allow-fs-read=*', '--import', forbidden, ...more],
            ...[join(programs, 'shoal.js'), 'backup', 'verify', file, '--key-file', keyFile],
          ],
          { cwd: folder, env: { ...process.env, NO_COLOR: '1', SHOAL_HOST: 'unix:///nowhere/shoal.sock' } },
        );
      const { stdout } = await verify();
      assert.match(stdout, /Managers: +1 \([\s\S]* 1 configs\n[\s\S]*It can be restored/);
      assert.deepEqual([readdirSync(folder).sort(), readFileSync(file), statSync(file).mtimeMs], before);
      // That it would be seen: a program that writes or listens is stopped.
      const tries = (code: string) =>
        run(process.execPath, [permission, '--allow-fs-read=*', '--import', forbidden, '-e', code], {
          cwd: folder,
        });
      await assert.rejects(tries("require('node:fs').writeFileSync('x', 'x')"), /ERR_ACCESS_DENIED/);
      await assert.rejects(tries("require('node:http').createServer().listen(0)"), /network was used/);
    });

    it('that is cut short, changed or something else is refused in words, and no daemon is asked', async () => {
      const bytes = readFileSync(file);
      const changed = Buffer.from(bytes);
      changed[bytes.length >> 1]! ^= 4;
      const cases = [
        [bytes.subarray(0, bytes.length - 100), /damaged.*changed or cut off/],
        [bytes.subarray(0, 60), /damaged at its head: its end is missing/],
        [changed, /damaged.*changed or cut off/],
        [readFileSync(join(programs, 'shoal.js')), /not a backup of a Shoal cluster/],
        [Buffer.alloc(0), /not a backup of a Shoal cluster/],
      ] as const;
      for (const [at, [content, words]] of cases.entries()) {
        const bad = join(folder, `bad-${at}`);
        writeFileSync(bad, content);
        for (const verb of ['verify', 'restore']) {
          const args = ['-H', 'unix:///nowhere/shoal.sock', 'backup', verb, bad, '--key-file', keyFile];
          const { status, stdout, stderr } = await runProgram('shoal', args);
          assert.deepEqual([status, stdout], [1, ''], `${verb} ${at}`);
          assert.match(stderr, words, `${verb} ${at}`);
          assert.doesNotMatch(stderr, /\n +at /, 'no trace of a stack');
        }
      }
    });

    it('needs its key, and says so', async () => {
      for (const verb of ['verify', 'restore']) {
        const args = ['-H', 'unix:///nowhere/shoal.sock', 'backup', verb, file];
        const missing = await runProgram('shoal', args);
        assert.deepEqual([missing.status, missing.stdout], [1, '']);
        assert.match(missing.stderr, /the key of the backup is needed: --key-file, or type it in/);
        const wrong = await runProgram('shoal', args, { input: 'SHOALBACKUP-1-wrong\n' });
        assert.equal(wrong.status, 1);
        assert.match(wrong.stderr, /does not open the backup: it is sealed under the key that was given/);
      }
    });
  });
});
