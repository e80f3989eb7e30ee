import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  grants,
  grantsFor,
  privilegesOf,
  readGrants,
  requireGrants,
} from '../../../manager/store/privileges.ts';
import { compareSpecs } from '../../../manager/store/revision.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { parseDevice, parseSecurityOption } from '../../../proto/privileges.ts';
import { makeCluster, makeSpec } from '../orchestrator/objects.ts';

const clusterThatAllows = (value?: string) =>
  makeCluster({ Spec: { Labels: value === undefined ? {} : { 'shoal.allow-privileges': value } } }).Spec;

describe('privileges', () => {
  it('are what the labels ask for', () => {
    assert.equal(privilegesOf({ 'com.example': 'x', 'shoal.privileged': 'false' }), undefined);
    const labels = {
      'shoal.privileged': 'true',
      'shoal.devices': '/dev/fuse, /dev/snd:/dev/sound:rw',
      'shoal.security-opt': 'seccomp:unconfined,no-new-privileges:true',
      'shoal.ipc': 'host',
      'shoal.pid': 'host',
      'shoal.shm-size': '64m',
      'shoal.gpu': 'gpu',
    };
    assert.deepEqual(privilegesOf(labels), {
      privileged: true,
      devices: [
        { host: '/dev/fuse', container: '/dev/fuse', permissions: 'rwm' },
        { host: '/dev/snd', container: '/dev/sound', permissions: 'rw' },
      ],
      securityOpt: ['seccomp=unconfined', 'no-new-privileges'],
      ipc: 'host',
      pid: 'host',
      shmBytes: 64 * 1024 * 1024,
      gpu: 'gpu',
    });
    assert.deepEqual(grantsFor(privilegesOf(labels)!), [...grants]);
  });

  for (const [labels, needs] of [
    [{ 'shoal.privileged': 'true' }, ['privileged']],
    [{ 'shoal.devices': '/dev/fuse' }, ['devices']],
    [{ 'shoal.gpu': 'gpu' }, ['devices']],
    [{ 'shoal.security-opt': 'no-new-privileges' }, []],
    [{ 'shoal.security-opt': 'apparmor=unconfined' }, ['security-opt']],
    [{ 'shoal.ipc': 'private' }, []],
    [{ 'shoal.ipc': 'host' }, ['ipc']],
    [{ 'shoal.pid': 'host' }, ['pid']],
    [{ 'shoal.shm-size': '1g' }, []],
  ] as const) {
    it(`${JSON.stringify(labels)} needs ${needs.join() || 'nothing'} to be allowed, which nothing is at first`, () => {
      assert.deepEqual(grantsFor(privilegesOf(labels)!), needs);
      const ask = (allowed?: string) => requireGrants(clusterThatAllows(allowed), labels);
      ask('all');
      ask(needs.join());
      for (const allowed of [undefined, '', 'none', 'nonsense']) {
        if (needs.length === 0) ask(allowed);
        else {
          assert.throws(
            () => ask(allowed),
            (error) =>
              isShoalError(error, 'permission-denied') &&
              error.message.includes(`shoal swarm update --allow-privileges ${needs.join()}`),
          );
        }
      }
    });
  }

  it('the setting is all, none or some of them', () => {
    assert.deepEqual(readGrants('pid, devices'), ['devices', 'pid']);
    assert.throws(() => readGrants('devices,root'), /must be all, none, or some of privileged,/);
  });

  it('devices are of /dev, and nothing climbs out of it', () => {
    for (const bad of [
      '',
      'fuse',
      '/etc/passwd',
      '/dev/../etc',
      '/dev',
      '/dev/a:b',
      '/dev/a:/x:q',
      '/dev/a:/x:rr',
      '/dev/a:/b:r:w',
    ]) {
      assert.equal(parseDevice(bad), undefined, bad);
    }
    assert.deepEqual(parseDevice('/dev/a:r'), { host: '/dev/a', container: '/dev/a', permissions: 'r' });
    fc.assert(
      fc.property(fc.string(), (text) => {
        const device = parseDevice(text);
        assert.ok(device === undefined || device.host.startsWith('/dev/'));
      }),
    );
    for (const bad of ['seccomp=/etc/profile.json', 'seccomp=', 'label=', 'x', 'apparmor=']) {
      assert.equal(parseSecurityOption(bad), undefined, bad);
    }
  });

  it('a change of them replaces the tasks; a change of another label does not', () => {
    const spec = (labels: Record<string, string>) => makeSpec({ Labels: labels });
    assert.equal(compareSpecs(spec({}), spec({ 'shoal.shm-size': '64m' })), 'container');
    assert.equal(compareSpecs(spec({}), spec({ 'shoal.rotate': 'none' })), 'none');
  });
});
