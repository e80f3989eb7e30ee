import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ofInterface } from '../../cli/addresses.ts';
import { chooseSettings, readSettings, settingsFile, writeSettings } from '../../cli/node-settings.ts';
import { isShoalError } from '../../proto/errors.ts';

const flags = { listenAddress: '127.0.0.1:4000', advertiseAddress: undefined };

describe('a node’s settings', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-settings-'));
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('are absent before there are any, and come back as they were written', () => {
    assert.equal(readSettings(folder), undefined);
    const settings = { listenAddress: '0.0.0.0:2377', advertiseAddress: '10.0.0.1:2377' };
    writeSettings(folder, settings);
    assert.deepEqual(readSettings(folder), settings);
  });

  it('that are damaged are refused with the file’s name', () => {
    for (const text of [
      '',
      '{"listenAddress"',
      '{}',
      'null',
      '{"listenAddress":"","advertiseAddress":"10.0.0.1:1"}',
    ]) {
      writeFileSync(join(folder, settingsFile), text);
      assert.throws(
        () => readSettings(folder),
        (error) => isShoalError(error, 'corrupted') && error.message.includes(settingsFile),
      );
    }
  });

  it('are what the request asks for, else the flags, and the docker CLI’s default is no wish', () => {
    const asked = (listen?: string, advertise?: string) => chooseSettings({ listen, advertise }, flags);
    assert.deepEqual(asked('0.0.0.0:2377'), {
      listenAddress: '127.0.0.1:4000',
      advertiseAddress: '127.0.0.1:4000',
    });
    assert.deepEqual(asked('127.0.0.1:5000', '10.0.0.1'), {
      listenAddress: '127.0.0.1:5000',
      advertiseAddress: '10.0.0.1:5000',
    });
    assert.equal(asked('127.0.0.1:5000', '10.0.0.1:6000').advertiseAddress, '10.0.0.1:6000');
    const flagged = { ...flags, advertiseAddress: '10.0.0.9:4001' };
    const byFlag = (listen?: string) => chooseSettings({ listen, advertise: undefined }, flagged);
    assert.equal(byFlag().advertiseAddress, '10.0.0.9:4001');
    assert.equal(byFlag('0.0.0.0:4500').advertiseAddress, '10.0.0.9:4500');
    assert.throws(
      () => asked('nonsense:port'),
      (error) => isShoalError(error, 'invalid-argument'),
    );
  });

  it('may name an interface in place of its address', () => {
    const asked = { listen: 'lo:5001', advertise: 'lo', dataPath: 'lo' };
    assert.deepEqual(chooseSettings(asked, flags), {
      listenAddress: '127.0.0.1:5001',
      advertiseAddress: '127.0.0.1:5001',
    });
    const interfaces = {
      eth0: [{ family: 'IPv4', address: '10.0.0.1' }],
      eth1: [],
      eth2: [
        { family: 'IPv4', address: '10.0.0.2' },
        { family: 'IPv4', address: '10.0.0.3' },
      ],
    } as unknown as Parameters<typeof ofInterface>[2];
    assert.equal(ofInterface('eth0:7', 'X', interfaces), '10.0.0.1:7');
    assert.equal(ofInterface('eth0.example', 'X', interfaces), 'eth0.example');
    assert.throws(() => ofInterface('eth1', 'X', interfaces), /interface eth1 has no IPv4 address/);
    assert.throws(() => ofInterface('eth2', 'X', interfaces), /several addresses \(10.0.0.2, 10.0.0.3\)/);
  });

  it('hold the address of the data path where it is another one', () => {
    const asked = { listen: '127.0.0.1:5000', advertise: '10.0.0.1', dataPath: '10.9.0.1' };
    const settings = chooseSettings(asked, flags);
    assert.equal(settings.dataPathAddress, '10.9.0.1');
    writeSettings(folder, settings);
    assert.deepEqual(readSettings(folder), settings);
    assert.equal(chooseSettings({ ...asked, dataPath: '10.0.0.1' }, flags).dataPathAddress, undefined);
    assert.throws(
      () => chooseSettings({ ...asked, dataPath: 'nowhere' }, flags),
      /DataPathAddr "nowhere" is neither/,
    );
  });
});
