import assert from 'node:assert/strict';
import type { CompiledStack } from '../../../manager/stack/compose.ts';
import {
  type PlanOptions,
  planStack,
  removeStack,
  type StackObjectName,
} from '../../../manager/stack/plan.ts';
import type { Change } from '../../../manager/store/change.ts';
import { createServiceChanges } from '../../../manager/store/service-change.ts';
import { Store } from '../../../manager/store/store.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { type Id, type NewId, newId } from '../../../proto/ids.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeSpec, makeTask } from '../orchestrator/objects.ts';
import { compile, complaints, web } from './files.ts';

const start = Date.UTC(2026, 0, 1);

const full = [
  web('networks: [back]', 'secrets: [key]', 'configs: [motd]', 'deploy: {replicas: 3}'),
  '  db:',
  '    image: postgres',
  'networks: {back: {}}',
  'secrets: {key: {file: key.txt}}',
  'configs: {motd: {content: hello}}',
].join('\n');
const files = { '/home/me/app/key.txt': 'secret one' };

class Cluster {
  readonly store = new Store();
  private readonly random = seededRandom(3);
  private now = start;

  readonly newId: NewId = <I extends Id<string>>() => newId<I>(this.random);

  apply(changes: readonly Change[]): void {
    assert.deepEqual(this.store.applyEntry(this.store.index + 1, { now: this.now, changes }), { ok: true });
  }

  plan(compiled: CompiledStack, over: Partial<PlanOptions> = {}, name = 'app') {
    this.now += 1000;
    const options = { prune: false, now: this.now, newId: this.newId, ...over };
    return planStack(this.store, name, compiled, compiled.source, options);
  }

  deploy(compiled: CompiledStack, over: Partial<PlanOptions> = {}) {
    const plan = this.plan(compiled, over);
    if (plan.changes.length > 0) this.apply(plan.changes);
    return { ...plan.summary, count: plan.changes.length };
  }

  names(kind: 'service' | 'network' | 'secret' | 'config' | 'stack'): string[] {
    return this.store.list(kind).map((object) => object.Spec.Name);
  }
}

function told(objects: readonly StackObjectName[]): string[] {
  return objects.map(({ kind, name }) => `${kind} ${name}`);
}

describe('stack: deploy', () => {
  it('creates everything in one entry, names resolved to ids', () => {
    const cluster = new Cluster();
    const done = cluster.deploy(compile(full, files));
    assert.deepEqual(told(done.created), [
      'network app_back',
      'network app_default',
      'secret app_key',
      'config app_motd',
      'service app_web',
      'service app_db',
    ]);
    const [webService] = cluster.store.list('service');
    const task = webService!.Spec.TaskTemplate;
    const idOf = (kind: 'network' | 'secret' | 'config', name: string) =>
      cluster.store.find(kind, 'name', name)[0]!.ID;
    assert.deepEqual(task.Networks, [{ Target: idOf('network', 'app_back'), Aliases: ['web'] }]);
    assert.equal(task.ContainerSpec.Secrets?.[0]?.SecretID, idOf('secret', 'app_key'));
    assert.equal(task.ContainerSpec.Configs?.[0]?.ConfigID, idOf('config', 'app_motd'));
    assert.equal(cluster.store.get('revision', webService!.Private.RevisionID)?.Number, 1);
    const stack = cluster.store.list('stack')[0]!;
    assert.equal(stack.Spec.Name, 'app');
    assert.ok(stack.Source.includes('postgres') && !stack.Source.includes('secret one'));
  });

  it('of the same files changes nothing', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const again = cluster.deploy(compile(full, files), { prune: true });
    assert.equal(again.count, 0);
    assert.equal(again.unchanged.length, 6);
  });

  it('updates only what differs, with a new revision and the spec before', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const before = cluster.store.list('service')[0]!;
    const done = cluster.deploy(compile(full.replace('replicas: 3', 'replicas: 4'), files));
    assert.deepEqual([told(done.updated), told(done.created)], [['service app_web'], []]);
    const after = cluster.store.list('service')[0]!;
    assert.deepEqual(after.PreviousSpec, before.Spec);
    assert.equal(after.Private.PreviousRevisionID, before.Private.RevisionID);
    assert.equal(cluster.store.get('revision', after.Private.RevisionID)?.Number, 2);
    const [stack] = cluster.store.list('stack');
    assert.equal(stack!.History.length, 1);
    assert.ok(stack!.Source.includes('replicas: 4') && stack!.History[0]!.Source.includes('replicas: 3'));
  });

  it('keeps ten sources of the past', () => {
    const cluster = new Cluster();
    for (let replicas = 1; replicas <= 13; replicas += 1) {
      cluster.deploy(compile(web(`deploy: {replicas: ${replicas}}`)));
    }
    const { History, Source } = cluster.store.list('stack')[0]!;
    assert.match(Source, /replicas: 13/);
    assert.equal(History.length, 10);
    assert.match(History[0]!.Source, /replicas: 12/);
    assert.match(History[9]!.Source, /replicas: 3\n/);
  });

  it('prunes what the files have no more, when asked', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const less = compile(`${web('secrets: [key]')}\nsecrets: {key: {file: key.txt}}\n`, files);
    assert.deepEqual(cluster.deploy(less).removed, []);
    assert.deepEqual(cluster.names('service'), ['app_web', 'app_db']);
    assert.deepEqual(told(cluster.deploy(less, { prune: true }).removed), ['service app_db']);
    assert.deepEqual(cluster.names('service'), ['app_web']);
  });

  it('keeps the digest that an image was resolved to, and the count of forced updates', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(web()));
    const service = cluster.store.list('service')[0]!;
    const task = service.Spec.TaskTemplate;
    const ContainerSpec = { ...task.ContainerSpec, Image: 'nginx@sha256:0123', Isolation: 'default' };
    const Placement = { Platforms: [{ OS: 'linux', Architecture: 'amd64' }] };
    const TaskTemplate = { ...task, ContainerSpec, Placement, ForceUpdate: 2, Runtime: 'container' };
    const Spec = { ...service.Spec, TaskTemplate };
    cluster.apply([{ op: 'update', kind: 'service', object: { ...service, Spec } }]);
    assert.equal(cluster.deploy(compile(web())).count, 0);
    cluster.deploy(compile(web().replace('nginx', 'nginx:2')));
    const after = cluster.store.list('service')[0]!.Spec.TaskTemplate;
    assert.deepEqual([after.ContainerSpec.Image, after.ForceUpdate], ['nginx:2', 2]);
  });

  it('relabels secrets and configs, and warns of networks that it cannot change', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const changed = full
      .replace('{content: hello}', '{content: hello, labels: {a: b}}')
      .replace('{back: {}}', '{back: {internal: true}}');
    const done = cluster.deploy(compile(changed, files));
    assert.deepEqual(told(done.updated), ['config app_motd']);
    assert.equal(cluster.store.list('config')[0]!.Spec.Labels.a, 'b');
    assert.match(done.warnings.join(), /compose\.yml:10: networks\.back: not changed: a network can't be/);
  });

  describe('another content of a secret or config is a new version', () => {
    const changed = full.replace('hello', 'bye');
    const motd = (cluster: Cluster, name = 'app_web') =>
      cluster.store.find('service', 'name', name)[0]!.Spec.TaskTemplate.ContainerSpec.Configs?.[0]?.ConfigID;
    const present = (cluster: Cluster, kind: 'secret' | 'config', name: string) =>
      cluster.store.find(kind, 'name', name)[0]!;

    it('to which the services that have it go over, in the same entry', () => {
      const cluster = new Cluster();
      cluster.deploy(compile(full, files));
      const before = present(cluster, 'config', 'app_motd');
      const done = cluster.deploy(compile(changed, { '/home/me/app/key.txt': 'secret two' }));
      assert.deepEqual(told(done.updated), ['secret app_key', 'config app_motd', 'service app_web']);
      assert.equal(motd(cluster), present(cluster, 'config', 'app_motd').ID);
      assert.deepEqual(cluster.names('config').sort(), ['app_motd', 'app_motd@1']);
      assert.equal(present(cluster, 'config', 'app_motd@1').ID, before.ID);
      assert.equal(
        Buffer.from(present(cluster, 'config', 'app_motd').Spec.Data ?? '', 'base64').toString(),
        'bye',
      );
      assert.equal(cluster.deploy(compile(changed, { '/home/me/app/key.txt': 'secret two' })).count, 0);
      const stack = cluster.store.list('stack')[0]!;
      assert.ok(stack.Deployment?.Revisions?.every((id) => cluster.store.get('revision', id)));
      assert.ok(!JSON.stringify(stack).includes('secret two'));
    });

    it('by signal, where that is asked for: no update begins', () => {
      const signalled = (text: string) =>
        text.replace('{replicas: 3}', '{replicas: 3, labels: {shoal.rotate: "signal:SIGHUP"}}');
      const cluster = new Cluster();
      cluster.deploy(compile(signalled(full), files));
      const service = cluster.store.find('service', 'name', 'app_web')[0]!;
      const object = {
        ...makeTask('t1', service.ID),
        RevisionID: service.Private.RevisionID,
        Slot: 1,
      };
      cluster.apply([{ op: 'create', kind: 'task', object }]);
      cluster.deploy(compile(signalled(changed), files));
      const after = cluster.store.find('service', 'name', 'app_web')[0]!;
      assert.equal(cluster.store.list('task')[0]!.RevisionID, after.Private.RevisionID);
      assert.notEqual(after.Private.RevisionID, service.Private.RevisionID);
    });

    it('that a service keeps out of by its label, and is told so', () => {
      const kept = (text: string) =>
        text.replace('{replicas: 3}', '{replicas: 3, labels: {shoal.rotate: none}}');
      const cluster = new Cluster();
      cluster.deploy(compile(kept(full), files));
      const before = motd(cluster);
      const done = cluster.deploy(compile(kept(changed), files));
      assert.deepEqual(told(done.updated), ['config app_motd']);
      assert.equal(motd(cluster), before);
      assert.match(done.warnings.join(), /service app_web keeps the versions that it has/);
    });

    it('with what else changes of a service, in one update', () => {
      const cluster = new Cluster();
      cluster.deploy(compile(full, files));
      cluster.deploy(compile(changed.replace('nginx', 'nginx:2'), files));
      const after = cluster.store.find('service', 'name', 'app_web')[0]!;
      assert.equal(after.Spec.TaskTemplate.ContainerSpec.Image, 'nginx:2');
      assert.equal(motd(cluster), present(cluster, 'config', 'app_motd').ID);
      assert.equal(cluster.store.get('revision', after.Private.RevisionID)?.Number, 2);
    });

    it('also for services outside of the stack', () => {
      const cluster = new Cluster();
      cluster.deploy(compile(full, files));
      const guest = compile(
        [
          web('networks: [wire]', 'configs: [motd]'),
          'networks: {wire: {external: true, name: host}}',
          'configs: {motd: {external: true, name: app_motd}}',
        ].join('\n'),
      );
      const renamed = { ...guest, services: guest.services.map((spec) => ({ ...spec, Name: 'guest_web' })) };
      cluster.apply(cluster.plan(renamed, {}, 'guest').changes);
      const done = cluster.deploy(compile(changed, files));
      assert.ok(told(done.updated).includes('service guest_web'));
      assert.equal(motd(cluster, 'guest_web'), present(cluster, 'config', 'app_motd').ID);
    });
  });

  it('uses what is external, and the engines’ own networks', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const guest = compile(
      [
        web('networks: [there, wire]', 'secrets: [key]'),
        'networks: {there: {external: true, name: app_back}, wire: {external: true, name: host}}',
        'secrets: {key: {external: true, name: app_key}}',
      ].join('\n'),
    );
    const renamed = { ...guest, services: guest.services.map((spec) => ({ ...spec, Name: 'guest_web' })) };
    cluster.apply(cluster.plan(renamed, {}, 'guest').changes);
    const service = cluster.store.find('service', 'name', 'guest_web')[0]!;
    const [back] = cluster.store.find('network', 'name', 'app_back');
    assert.deepEqual(
      service.Spec.TaskTemplate.Networks?.map((one) => one.Target).sort(),
      [back!.ID, 'host'].sort(),
    );
  });
});

describe('stack: what is in the way is told with its line, and nothing is changed', () => {
  function refusals(
    compiled: CompiledStack,
    prepare?: (cluster: Cluster) => void,
    over: Partial<PlanOptions> = {},
  ): string[] {
    const cluster = new Cluster();
    prepare?.(cluster);
    return complaints(() => cluster.plan(compiled, over));
  }

  it('ports that another service publishes', () => {
    const Ports = [{ TargetPort: 80, PublishedPort: 8080 }];
    const other = makeSpec({ Name: 'other', EndpointSpec: { Ports } });
    const [message] = refusals(compile(web('ports: ["8080:80"]')), (cluster) =>
      cluster.apply(createServiceChanges(other, start, cluster.newId).changes),
    );
    assert.match(
      message ?? '',
      /^compose\.yml:2: services\.web: port '8080' is already in use by service 'other' \(\w+\) as an ingress port$/,
    );
  });

  it('external objects that do not exist', () => {
    const compiled = compile(
      [
        web('networks: [there]', 'secrets: [key]', 'configs: [motd]'),
        'networks: {there: {external: true}}',
        'secrets:',
        '  key: {external: true}',
        'configs:',
        '  motd: {external: {name: m}}',
      ].join('\n'),
    );
    assert.deepEqual(refusals(compiled), [
      'compose.yml:7: networks.there: network "there" is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed',
      'compose.yml:9: secrets.key: secret not found: key: create it before the stack is deployed',
      'compose.yml:11: configs.motd: config not found: m: create it before the stack is deployed',
    ]);
  });

  it('secrets and configs with another driver', () => {
    const prepare = (cluster: Cluster) => void cluster.deploy(compile(full, files));
    const changed = compile(
      full.replace('{content: hello}', '{content: bye, template_driver: golang}'),
      files,
    );
    assert.deepEqual(refusals(changed, prepare), [
      "compose.yml:12: configs.motd: config app_motd has another driver than before, which can't be changed; give it a new name (name: app_motd_2), or remove it first",
    ]);
  });

  it('names that belong to others', () => {
    const prepare = (cluster: Cluster) => {
      const theirs = compile(`${web('networks: [n]')}\nnetworks: {n: {name: shared}}`);
      const labels = { 'com.docker.stack.namespace': 'other' };
      cluster.deploy({
        ...theirs,
        services: theirs.services.map((spec) => ({ ...spec, Labels: labels })),
        networks: theirs.networks.map((spec) => ({ ...spec, Labels: labels })),
      });
    };
    assert.deepEqual(refusals(compile(`${web('networks: [n]')}\nnetworks: {n: {name: shared}}`), prepare), [
      'compose.yml:5: networks.n: network shared exists already and belongs to stack other: choose another name, or declare it external',
      'compose.yml:2: services.web: service app_web exists already and belongs to stack other: remove it, or choose another name',
    ]);
  });

  it('subnets that overlap, modes that change, and what the door checks besides', () => {
    const subnet = (range: string) => `${web()}\nnetworks: {default: {ipam: {config: [{subnet: ${range}}]}}}`;
    const prepare = (cluster: Cluster) => {
      cluster.deploy(
        compile(
          `${web('networks: [n]')}\nnetworks: {n: {name: taken, ipam: {config: [{subnet: 10.1.0.0/16}]}}}`,
        ),
      );
      const [network] = cluster.store.list('network');
      const IPAMOptions = { Driver: { Name: 'default' }, Configs: [{ Subnet: '10.1.0.0/16' }] };
      cluster.apply([{ op: 'merge', kind: 'network', id: network!.ID, fields: { IPAMOptions } }]);
    };
    assert.deepEqual(refusals(compile(subnet('10.1.2.0/24')), prepare), [
      'compose.yml:4: networks.default: subnet 10.1.2.0/24 of network app_default overlaps 10.1.0.0/16, which network taken uses: choose another',
    ]);
    assert.deepEqual(
      refusals(compile(web('deploy: {mode: global}')), (cluster) => void cluster.deploy(compile(web()))),
      ['compose.yml:2: services.web: service mode change is not allowed'],
    );
    const check = {
      service(): void {
        throw new ShoalError('invalid-argument', 'no such luck');
      },
    };
    assert.deepEqual(refusals(compile(web()), undefined, { check }), [
      'compose.yml:2: services.web: no such luck',
    ]);
  });
});

describe('stack: removal', () => {
  it('takes everything of the stack in one entry, and nothing else', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    cluster.apply([
      {
        op: 'create',
        kind: 'secret',
        object: {
          ID: cluster.newId(),
          Version: { Index: 0 },
          CreatedAt: '',
          UpdatedAt: '',
          Spec: { Name: 'other', Labels: {} },
        },
      },
    ]);
    const { changes, summary } = removeStack(cluster.store, 'app');
    cluster.apply(changes);
    assert.equal(summary.removed.length, 6);
    for (const kind of ['service', 'network', 'config', 'stack'] as const)
      assert.deepEqual(cluster.names(kind), []);
    assert.deepEqual(cluster.names('secret'), ['other']);
    assert.throws(() => removeStack(cluster.store, 'app'), {
      code: 'not-found',
      message: 'nothing found in stack: app',
    });
  });

  it('finds stacks that were deployed by a stock client, by their labels', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    cluster.apply(
      cluster.store.list('stack').map((stack) => ({ op: 'remove', kind: 'stack', id: stack.ID })),
    );
    cluster.apply(removeStack(cluster.store, 'app').changes);
    assert.deepEqual(cluster.names('service'), []);
  });

  it('is refused while a service outside uses something of it', () => {
    const cluster = new Cluster();
    cluster.deploy(compile(full, files));
    const service = cluster.store.list('service')[0]!;
    const Spec = { ...service.Spec, Name: 'guest', Labels: {} };
    cluster.apply([{ op: 'create', kind: 'service', object: { ...service, ID: cluster.newId(), Spec } }]);
    assert.throws(() => removeStack(cluster.store, 'app'), {
      code: 'in-use',
      message:
        /^secret app_key is in use by guest, outside of stack app: remove or update that first\nconfig app_motd/,
    });
  });
});
