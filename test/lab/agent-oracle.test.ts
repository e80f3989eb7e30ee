/**
 * Our agent under two kinds of manager: Docker's own (a stock Swarm) and ours. The cases are one list, run as it
 * is under both by the stock docker CLI; Docker's managers say what is right. Two cases are of the Docker side
 * alone: what a stock Swarm has and our agent can't take part in is refused in words.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inside, swarmOf } from './asking.ts';
import { containerFingerprint, containersOn } from './cluster.ts';
import { Lab, type LabHost, labMissing, type Output, waitFor } from './lab.ts';

type Side = 'docker' | 'shoal';

const patienceMs = 40_000;
/** Ends at once when asked. */
const sleeper = ['busybox:lab', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'];

/** A cluster of three managers that take no tasks, and one worker: our agent. */
class Setting {
  readonly side: Side;
  readonly lab: Lab;
  readonly managers: LabHost[];
  readonly worker: LabHost;
  /** The manager that is asked. */
  asked: LabHost;

  constructor(side: Side, lab: Lab) {
    this.side = side;
    this.lab = lab;
    this.managers = [lab.host(1), lab.host(2), lab.host(3)];
    this.worker = lab.host(4);
    this.asked = lab.host(1);
  }

  /** The stock CLI against `host` as a manager of this side. */
  on(host: LabHost, ...command: string[]): Promise<Output> {
    return this.side === 'docker' ? host.engine(...command) : host.docker(...command);
  }

  /** What a command prints, asked of a manager. */
  async ask(...command: string[]): Promise<string> {
    return (await this.on(this.asked, ...command)).stdout.trim();
  }

  async form(): Promise<void> {
    const daemons = this.side === 'docker' ? [this.worker] : this.lab.hosts;
    await Promise.all(daemons.map((host) => host.startShoald()));
    const [first, ...others] = this.managers;
    const drained = ['--availability', 'drain'];
    // Docker's own default, for both: on a busy machine a daemon needs longer to start than our second allows.
    const heartbeat = ['--dispatcher-heartbeat', '5s'];
    await this.on(first!, 'swarm', 'init', '--advertise-addr', first!.address, ...drained, ...heartbeat);
    const token = await this.token('manager');
    for (const host of others) {
      await this.on(host, 'swarm', 'join', '--token', token, ...drained, `${first!.address}:2377`);
    }
    await waitFor('three managers', patienceMs, async () => {
      const listed = await this.ask('node', 'ls', '--format', '{{.Status}} {{.ManagerStatus}}');
      return listed.split('\n').filter((line) => /^Ready (Leader|Reachable)$/.test(line)).length === 3;
    });
    await this.worker.shoal('swarm', 'join', '--token', await this.token('worker'), `${first!.address}:2377`);
  }

  token(role: 'worker' | 'manager'): Promise<string> {
    return this.ask('swarm', 'join-token', '-q', role);
  }

  /** `docker service create` without waiting and without asking a registry for the digest. */
  create(name: string, ...rest: string[]): Promise<string> {
    const flags = ['--detach', '--no-resolve-image', '--name', name, '--stop-grace-period', '2s'];
    return this.ask('service', 'create', ...flags, ...rest);
  }

  /** `docker service ps` of a service, newest first: "state|desired|error|id". */
  async tasks(name: string): Promise<{ state: string; desired: string; error: string; id: string }[]> {
    const format = '{{.CurrentState}}|{{.DesiredState}}|{{.Error}}|{{.ID}}';
    const listed = await this.ask('service', 'ps', '--no-trunc', '--format', format, name);
    return listed
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [state = '', desired = '', error = '', id = ''] = line.split('|');
        return { state: state.split(' ')[0]!, desired, error, id };
      });
  }

  /** Waits until `count` tasks of the service run and no other is wanted. */
  running(name: string, count = 1): Promise<string[]> {
    let seen = '';
    return waitFor(`${count} tasks of ${name} to run under ${this.side}`, patienceMs, async () => {
      const wanted = (await this.tasks(name)).filter(({ desired }) => desired === 'Running');
      seen = wanted.map(({ state, error }) => `${state} ${error}`).join(' | ');
      const ids = wanted.filter(({ state }) => state === 'Running').map(({ id }) => id);
      if (ids.length === count && wanted.length === count) return ids;
      throw new Error(seen);
    });
  }

  /** Waits until a task of the service is in `state` with an error that matches. */
  ended(name: string, state: string, error: RegExp): Promise<string> {
    return waitFor(`a task of ${name} to be ${state} (${error})`, patienceMs, async () => {
      const tasks = await this.tasks(name);
      const found = tasks.find((task) => task.state === state && error.test(task.error));
      if (found) return found.error;
      throw new Error(tasks.map((task) => `${task.state} ${task.error}`).join(' | '));
    });
  }

  /** The container that runs a service's only task. */
  async container(name: string): Promise<string> {
    await this.running(name);
    const filter = ['--filter', `label=com.docker.swarm.service.name=${name}`];
    const { stdout } = await this.worker.engine('ps', '-q', '--no-trunc', ...filter);
    const ids = stdout.split('\n').filter(Boolean);
    assert.equal(ids.length, 1, `${name} has one container`);
    return ids[0]!;
  }

  async inspect<T>(containerId: string, format: string): Promise<T> {
    const { stdout } = await this.worker.engine('inspect', '--format', `{{json ${format}}}`, containerId);
    return JSON.parse(stdout) as T;
  }

  async remove(...names: string[]): Promise<void> {
    await this.ask('service', 'rm', ...names);
    for (const name of names) {
      await waitFor(`the containers of ${name} to be gone`, patienceMs, async () => {
        const filter = ['--filter', `label=com.docker.swarm.service.name=${name}`];
        return (await this.worker.engine('ps', '-aq', ...filter)).stdout === '';
      });
    }
  }
}

interface Case {
  readonly name: string;
  /** The side that it is of, when it is not of both. */
  readonly only?: Side;
  run(at: Setting): Promise<void>;
}

const certificatePath = (host: LabHost): string => join(host.dataDir, 'certificates', 'swarm-node.crt');

/** What a container shows of its task: the same under both kinds of manager, but for ids. */
const shown: Partial<Record<Side, unknown>> = {};

const cases: readonly Case[] = [
  {
    name: 'is listed as a ready node, and its API answers as a worker',
    async run(at) {
      const listed = await at.ask('node', 'ls', '--format', '{{.Hostname}} {{.Status}} {{.Availability}}');
      assert.match(listed, /^h4 Ready Active$/m);
      const swarm = await swarmOf(at.worker);
      assert.deepEqual([swarm.LocalNodeState, swarm.ControlAvailable], ['active', false]);
      for (const command of [
        ['node', 'ls'],
        ['service', 'ls'],
        ['swarm', 'join-token', 'worker'],
      ]) {
        await assert.rejects(at.worker.docker(...command), /Worker nodes can't be used to view or modify/);
      }
      const facts = await at.ask(
        'node',
        'inspect',
        'h4',
        '--format',
        '{{.Description.Platform.OS}} {{.Status.Addr}}',
      );
      assert.equal(facts, `linux ${at.worker.address}`);
    },
  },
  {
    name: 'runs a task with its environment, templates, mounts, user, limits and labels',
    async run(at) {
      const flags = [
        ['--network', 'host', '--env', 'SLOT={{.Task.Slot}}', '--env', 'NODE={{.Node.Hostname}}'],
        ['--hostname', '{{.Service.Name}}-{{.Task.Slot}}', '--workdir', '/tmp', '--user', '7:8'],
        ['--mount', 'type=tmpfs,target=/scratch', '--limit-memory', '64m', '--container-label', 'a=b'],
        ['--label', 'of=the-service', '--stop-signal', 'TERM', '--cap-drop', 'NET_RAW', '--read-only'],
      ].flat();
      await at.create('whole', ...flags, ...sleeper);
      const id = await at.container('whole');
      type Config = { Env: string[]; Labels: Record<string, string>; User: string; WorkingDir: string };
      const { Env, Labels, User, WorkingDir } = await at.inspect<Config>(id, '.Config');
      const name = await at.inspect<string>(id, '.Name');
      const host = await at.inspect<Record<string, unknown>>(id, '.HostConfig');
      const [task] = await at.running('whole');
      assert.equal(name, `/whole.1.${task}`);
      assert.equal(Labels['com.docker.swarm.task.id'], task);
      const { NetworkMode, Memory, CapDrop, ReadonlyRootfs, RestartPolicy, Mounts } = host;
      const kept = Object.entries(Labels).map(([key, value]) => [
        key,
        /[.]id$|[.]task$|task[.]name/.test(key) ? '' : value,
      ]);
      shown[at.side] = {
        environment: Env.filter((line) => /^(SLOT|NODE)=/.test(line)).sort(),
        labels: Object.fromEntries(kept.sort()),
        rest: { User, WorkingDir, NetworkMode, Memory, CapDrop, ReadonlyRootfs, RestartPolicy, Mounts },
      };
      assert.match(await inside(at.worker, id, 'sh', '-c', 'echo $SLOT $NODE'), /^1 h4\n$/);
      if (at.side === 'shoal') assert.deepEqual(shown.shoal, shown.docker);
      await at.remove('whole');
    },
  },
  {
    name: 'gives a task its secrets and configs, in memory only',
    async run(at) {
      await at.on(at.asked, 'secret', 'create', 'hush', '/proc/sys/kernel/ostype');
      await at.on(at.asked, 'config', 'create', 'open', '/proc/sys/kernel/ostype');
      const uses = [
        '--secret',
        'source=hush,target=key,uid=7,mode=0400',
        '--config',
        'source=open,target=/conf',
      ];
      await at.create('payload', '--network', 'host', ...uses, ...sleeper);
      const id = await at.container('payload');
      assert.equal(await inside(at.worker, id, 'cat', '/run/secrets/key', '/conf'), 'Linux\nLinux\n');
      assert.match(await inside(at.worker, id, 'stat', '-c', '%a %u', '/run/secrets/key'), /^400 7\n$/);
      await assert.rejects(at.ask('secret', 'rm', 'hush'), /in use/);
      await at.remove('payload');
      await at.ask('secret', 'rm', 'hush');
      await at.ask('config', 'rm', 'open');
    },
  },
  {
    name: 'attaches tasks to the engine’s own networks',
    async run(at) {
      // Docker's managers offer no `none` to services.
      const networks = at.side === 'docker' ? ['host', 'bridge'] : ['host', 'bridge', 'none'];
      for (const network of networks) {
        await at.create(`on-${network}`, '--network', network, ...sleeper);
        const id = await at.container(`on-${network}`);
        const names = await at.inspect<Record<string, unknown>>(id, '.NetworkSettings.Networks');
        assert.deepEqual(Object.keys(names), [network]);
      }
      await at.remove(...networks.map((network) => `on-${network}`));
    },
  },
  {
    name: 'publishes a port of the host, and says so',
    async run(at) {
      const port = ['--publish', 'mode=host,published=8080,target=80'];
      await at.create(
        'web',
        ...port,
        'busybox:lab',
        'sh',
        '-c',
        'echo hello > /index.html; exec httpd -f -p 80 -h /',
      );
      const [task] = await at.running('web');
      const answer = await waitFor(
        'the port to answer',
        patienceMs,
        async () =>
          (await at.asked.exec('curl', '-s', '-m', '2', `http://${at.worker.address}:8080/`)).stdout,
      );
      assert.equal(answer, 'hello\n');
      const format =
        '{{range .Status.PortStatus.Ports}}{{.PublishedPort}}>{{.TargetPort}}/{{.Protocol}} {{.PublishMode}}{{end}}';
      assert.equal(await at.ask('inspect', '--type', 'task', '--format', format, task!), '8080>80/tcp host');
      await at.remove('web');
    },
  },
  {
    name: 'says in words why a task ended: exit, health check, missing image',
    async run(at) {
      const once = ['--network', 'host', '--restart-condition', 'none'];
      await at.create('exits', ...once, 'busybox:lab', 'sh', '-c', 'exit 3');
      await at.create(
        'sick',
        ...once,
        '--health-cmd',
        'exit 1',
        '--health-interval',
        '200ms',
        '--health-retries',
        '1',
        ...sleeper,
      );
      await at.create('imageless', ...once, 'no-such-image:lab');
      await at.create('ends', ...once, 'busybox:lab', 'true');
      assert.match(await at.ended('exits', 'Failed', /./), /^"?task: non-zero exit \(3\)"?$/);
      assert.match(await at.ended('sick', 'Failed', /./), /unhealthy container/);
      assert.match(await at.ended('imageless', 'Rejected', /./), /No such image: no-such-image:lab/);
      await at.ended('ends', 'Complete', /^$/);
      await at.remove('exits', 'sick', 'imageless', 'ends');
    },
  },
  {
    name: 'sends the logs of its services, once and as they come',
    async run(at) {
      const command = 'echo one; echo two >&2; trap "exit 0" TERM; while :; do sleep 1000 & wait; done';
      await at.create('talks', '--network', 'host', 'busybox:lab', 'sh', '-c', command);
      await at.running('talks');
      const { stdout, stderr } = await waitFor('both lines', patienceMs, async () => {
        const output = await at.on(at.asked, 'service', 'logs', 'talks');
        return output.stdout.includes('one') && output.stderr.includes('two') && output;
      });
      assert.match(stdout, /^talks\.1\.\w+@h4 +\| one\n$/);
      assert.match(stderr, /^talks\.1\.\w+@h4 +\| two\n$/);
      const tail = await at.on(at.asked, 'service', 'logs', '--raw', '--tail', '1', 'talks');
      assert.equal(tail.stdout + tail.stderr, 'two\n');
      await at.remove('talks');
    },
  },
  {
    name: 'pauses, drains and comes back',
    async run(at) {
      // There is nowhere else to go: our managers would let them serve on, unless told as Docker's do without being told.
      const leaving = ['--label', 'shoal.drain=at-once'];
      await at.create('moves', '--network', 'host', '--replicas', '2', ...leaving, ...sleeper);
      await at.running('moves', 2);
      const before = await containerFingerprint(at.worker);
      await at.ask('node', 'update', '--availability', 'pause', 'h4');
      await at.ask('service', 'scale', '--detach', 'moves=3');
      await waitFor('a task to wait', patienceMs, async () =>
        (await at.tasks('moves')).some(
          ({ state, error }) => state === 'Pending' && /no suitable node/.test(error),
        ),
      );
      assert.deepEqual(await containerFingerprint(at.worker), before);
      await at.ask('node', 'update', '--availability', 'drain', 'h4');
      await waitFor(
        'no container to be left',
        patienceMs,
        async () => (await containersOn(at.worker)).length === 0,
      );
      await at.ask('node', 'update', '--availability', 'active', 'h4');
      await at.running('moves', 3);
      await at.remove('moves');
    },
  },
  {
    name: 'replaces tasks at an update, and touches none while its daemon is away',
    async run(at) {
      await at.create('lasts', '--network', 'host', '--replicas', '2', ...sleeper);
      const old = await at.running('lasts', 2);
      await at.ask(
        'service',
        'update',
        '--detach',
        '--no-resolve-image',
        '--env-add',
        'A=2',
        '--update-parallelism',
        '2',
        'lasts',
      );
      await waitFor('two other tasks to run', patienceMs, async () => {
        const now = await at.running('lasts', 2);
        return now.every((id) => !old.includes(id));
      });
      await waitFor('two containers', patienceMs, async () => (await containersOn(at.worker)).length === 2);
      const before = await containerFingerprint(at.worker);
      await at.worker.killShoald('SIGKILL');
      await at.worker.startShoald();
      await waitFor(
        'the node to be ready',
        patienceMs,
        async () => (await at.ask('node', 'inspect', 'h4', '--format', '{{.Status.State}}')) === 'ready',
      );
      await at.running('lasts', 2);
      assert.deepEqual(await containerFingerprint(at.worker), before);
    },
  },
  {
    name: 'follows a rotation of the root with a new certificate, without touching its tasks',
    async run(at) {
      const before = await containerFingerprint(at.worker);
      const certificate = readFileSync(certificatePath(at.worker), 'utf8');
      const root = await at.ask('swarm', 'ca');
      await at.ask('swarm', 'ca', '--rotate', '--detach');
      await waitFor('another certificate, and the new root alone', patienceMs, async () => {
        const roots = readFileSync(join(at.worker.dataDir, 'certificates', 'swarm-root-ca.crt'), 'utf8');
        const isNew = readFileSync(certificatePath(at.worker), 'utf8') !== certificate;
        return isNew && !roots.includes(root) && roots.trim() === (await at.ask('swarm', 'ca'));
      });
      await at.ask('service', 'update', '--detach', '--label-add', 'told=1', 'lasts');
      await at.running('lasts', 2);
      assert.deepEqual(await containerFingerprint(at.worker), before);
    },
  },
  {
    name: 'goes over to another manager when the leader is lost',
    async run(at) {
      const before = await containerFingerprint(at.worker);
      await at.managers[0]!.powerOff();
      at.asked = at.managers[1]!;
      await waitFor('another leader', patienceMs, () => at.ask('service', 'ls'));
      await at.create('later', '--network', 'host', ...sleeper);
      await at.running('later');
      const after = await containerFingerprint(at.worker);
      assert.deepEqual(
        before.filter((line) => !after.includes(line)),
        [],
      );
    },
  },
  {
    name: 'rejects a task that needs Docker’s overlay or its ingress, and says what can be done',
    only: 'docker',
    async run(at) {
      await at.ask('network', 'create', '--driver', 'overlay', 'far');
      await at.create('over', '--network', 'far', '--restart-condition', 'none', ...sleeper);
      await at.create('mesh', '--publish', '8081:80', '--restart-condition', 'none', ...sleeper);
      assert.match(
        await at.ended('over', 'Rejected', /./),
        /takes no part in its overlay networks: network far/,
      );
      assert.match(await at.ended('mesh', 'Rejected', /./), /ingress mesh: publish the port with mode=host/);
      await at.remove('over', 'mesh');
      await at.ask('network', 'rm', 'far');
    },
  },
  {
    name: 'leaves: nothing of the cluster is left on the host',
    async run(at) {
      assert.equal((await containersOn(at.worker)).length, 3);
      await at.worker.shoal('swarm', 'leave');
      assert.equal((await at.worker.engine('ps', '-aq')).stdout, '');
      assert.equal((await swarmOf(at.worker)).LocalNodeState, 'inactive');
      for (const left of ['certificates/swarm-node.key', 'agent', 'raft', 'node.json']) {
        assert.equal(existsSync(join(at.worker.dataDir, left)), false, left);
      }
      const { stdout } = await at.worker.engine('network', 'ls', '--format', '{{.Name}}');
      assert.deepEqual(stdout.trim().split('\n').sort(), ['bridge', 'host', 'none']);
      await waitFor(
        'the node to be down',
        patienceMs,
        async () => (await at.ask('node', 'inspect', 'h4', '--format', '{{.Status.State}}')) === 'down',
      );
    },
  },
  {
    name: 'is refused in words with a manager’s token of a stock Swarm, and leaves no trace on its host',
    only: 'docker',
    async run(at) {
      const join = at.worker.shoal(
        'swarm',
        'join',
        '--token',
        await at.token('manager'),
        `${at.asked.address}:2377`,
      );
      const words = await join.then(
        () => '',
        (error: Error) => error.message,
      );
      assert.match(
        words,
        /is a Docker Engine, and shoald can't manage a Docker Swarm with it, only work in it/,
      );
      assert.equal((await swarmOf(at.worker)).LocalNodeState, 'inactive');
      const left = /docker node rm (\w+)/.exec(words)?.[1] ?? '';
      await at.ask('node', 'rm', left);
    },
  },
];

describe('lab: our agent under Docker’s managers and under ours', () => {
  let lab: Lab;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(4, 'shoal-oracle');
  });

  after(async () => {
    await lab?.down();
  });

  for (const side of ['docker', 'shoal'] as const) {
    describe(side === 'docker' ? 'a stock Docker Swarm' : 'our managers', () => {
      let setting: Setting;

      before(async () => {
        setting = new Setting(side, lab);
        await setting.form();
      });

      after(async () => {
        if (!setting || side === 'shoal') return;
        // The same hosts serve the other side.
        await setting.managers[0]!.powerOn();
        for (const host of setting.managers) await host.engine('swarm', 'leave', '--force');
        await setting.worker.killShoald('SIGTERM');
      });

      for (const { name, only, run } of cases) {
        if (only === undefined || only === side) it(name, () => run(setting));
      }
    });
  }
});
