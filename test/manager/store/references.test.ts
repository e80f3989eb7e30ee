import assert from 'node:assert/strict';
import type { Change } from '../../../manager/store/change.ts';
import { type ApplyResult, Store } from '../../../manager/store/store.ts';
import type { Config, Network, Secret, ServiceSpec } from '../../../proto/docker.ts';
import type { ConfigId, NetworkId, SecretId, ServiceId } from '../../../proto/ids.ts';
import { makeService, makeSpec } from '../orchestrator/objects.ts';

const meta = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
const network: Network = {
  ...meta,
  ID: 'n1' as NetworkId,
  Spec: { Name: 'back', Labels: {}, DriverConfiguration: { Name: 'overlay' } },
  IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
};
const secret: Secret = { ...meta, ID: 's1' as SecretId, Spec: { Name: 'password', Labels: {} } };
const config: Config = { ...meta, ID: 'c1' as ConfigId, Spec: { Name: 'settings', Labels: {}, Data: '' } };

const createNetwork: Change = { op: 'create', kind: 'network', object: network };
const createSecret: Change = { op: 'create', kind: 'secret', object: secret };
const createConfig: Change = { op: 'create', kind: 'config', object: config };
const removeNetwork: Change = { op: 'remove', kind: 'network', id: network.ID };
const removeSecret: Change = { op: 'remove', kind: 'secret', id: secret.ID };
const removeConfig: Change = { op: 'remove', kind: 'config', id: config.ID };

const using = (networks: readonly string[], secrets: readonly string[], configs: readonly string[]) =>
  makeSpec({
    TaskTemplate: {
      Networks: networks.map((Target) => ({ Target })),
      ContainerSpec: {
        Secrets: secrets.map((id) => ({ SecretID: id as SecretId, SecretName: `name-of-${id}` })),
        Configs: configs.map((id) => ({ ConfigID: id as ConfigId, ConfigName: `name-of-${id}` })),
      },
    },
  });
const usingAll = using(['n1'], ['s1'], ['c1']);
const usingNothing = using([], [], []);

const create = (spec: ServiceSpec): Change => ({
  op: 'create',
  kind: 'service',
  object: makeService('web', spec),
});
const removeService: Change = { op: 'remove', kind: 'service', id: 'web' as ServiceId };

describe('references of services', () => {
  let store: Store;
  const apply = (...changes: Change[]): ApplyResult => store.applyEntry(store.index + 1, { now: 0, changes });
  const done = (...changes: Change[]): void => assert.deepEqual(apply(...changes), { ok: true });
  const refused = (code: string, message: string, ...changes: Change[]): void => {
    assert.deepEqual(apply(...changes), { ok: false, code, message });
  };
  const update = (spec: ServiceSpec): Change => ({
    op: 'update',
    kind: 'service',
    object: { ...store.get('service', 'web' as ServiceId)!, Spec: spec },
  });

  beforeEach(() => {
    store = new Store();
  });

  it('refuse to be made to what is not there', () => {
    refused('not-found', 'network n1 not found', create(using(['n1'], [], [])));
    refused('not-found', 'secret name-of-s1 not found', create(using([], ['s1'], [])));
    refused('not-found', 'config name-of-c1 not found', create(using([], [], ['c1'])));
    assert.equal(store.count('service'), 0);
  });

  it('are made in the entry that makes what they refer to, in order', () => {
    refused('not-found', 'network n1 not found', create(usingAll), createNetwork, createSecret, createConfig);
    done(createNetwork, createSecret, createConfig, create(usingAll));
  });

  it('may name a network, and the networks that every engine has', () => {
    done(createNetwork, create(using(['back', 'host', 'bridge', 'none'], [], [])));
    refused('in-use', 'network back is in use by service web', removeNetwork);
  });

  it('are checked in an update too', () => {
    done(createNetwork, create(using(['n1'], [], [])));
    refused('not-found', 'secret name-of-s1 not found', update(using(['n1'], ['s1'], [])));
    done(createSecret);
    done(update(using(['n1'], ['s1'], [])));
  });

  it('keep what they refer to from being removed', () => {
    done(createNetwork, createSecret, createConfig, create(usingAll));
    refused('in-use', 'network back is in use by service web', removeNetwork);
    refused('in-use', 'secret password is in use by service web', removeSecret);
    refused('in-use', 'config settings is in use by service web', removeConfig);
    done(update(usingNothing));
    done(removeNetwork, removeSecret, removeConfig);
  });

  it('go before what they refer to in one entry', () => {
    done(createNetwork, createSecret, createConfig, create(usingAll));
    refused('in-use', 'secret password is in use by service web', removeSecret, removeService);
    done(removeService, removeNetwork, removeSecret, removeConfig);
    assert.deepEqual([store.count('service'), store.count('network'), store.count('secret')], [0, 0, 0]);
  });

  it('count as the entry leaves them', () => {
    done(createSecret, create(usingNothing));
    refused(
      'in-use',
      'secret password is in use by service web',
      update(using([], ['s1'], [])),
      removeSecret,
    );
    done(update(using([], ['s1'], [])));
    done(update(usingNothing), removeSecret);
  });

  it('do not keep a service from changing once what they refer to is checked', () => {
    done(createNetwork, create(using(['n1'], [], [])));
    done({
      op: 'merge',
      kind: 'service',
      id: 'web' as ServiceId,
      fields: { UpdateStatus: { State: 'paused', Message: '' } },
    });
  });
});
