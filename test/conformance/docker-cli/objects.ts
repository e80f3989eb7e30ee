/** Secrets, configs and stacks: what their flags put into the objects, and what goes when they are removed. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { at, docker, effect, type FlagCase, inspect, type Result, tryDocker, type World } from './case.ts';
import { askedWithCredentials, newName } from './service-create.ts';

async function withObject(
  world: World,
  kind: 'secret' | 'config',
  flags: readonly string[],
  check: (name: string) => Promise<Result>,
): Promise<Result> {
  const name = newName();
  const content = flags.includes('--driver') ? [] : ['-'];
  try {
    await docker(world, [kind, 'create', ...flags, name, ...content], { input: 'content' });
    return await check(name);
  } finally {
    await tryDocker(world, [kind, 'rm', name]);
  }
}

function creations(kind: 'secret' | 'config'): FlagCase[] {
  const command = `docker ${kind} create`;
  return [
    {
      command,
      flag: '',
      run: (world) =>
        withObject(world, kind, [], async (name) => {
          assert.equal((await inspect(world, kind, name)).Spec.Name, name);
          return effect('the object is there');
        }),
    },
    {
      command,
      flag: '--label',
      run: (world) =>
        withObject(world, kind, ['--label', 'a=b'], async (name) => {
          assert.deepEqual((await inspect(world, kind, name)).Spec.Labels, { a: 'b' });
          return effect('`Spec.Labels`');
        }),
    },
    {
      command,
      flag: '--template-driver',
      names: /templating/i,
      run: (world) =>
        withObject(world, kind, ['--template-driver', 'golang'], async (name) => {
          assert.equal((await inspect(world, kind, name)).Spec.Templating.Name, 'golang');
          return effect('`Spec.Templating`');
        }),
    },
    {
      command: `docker ${kind} rm`,
      flag: '',
      run: (world) =>
        withObject(world, kind, [], async (name) => {
          await docker(world, [kind, 'rm', name]);
          assert.notEqual((await tryDocker(world, [kind, 'inspect', name])).status, 0);
          return effect('the object is gone');
        }),
    },
  ];
}

const secretDriver: FlagCase = {
  command: 'docker secret create',
  flag: '--driver',
  run: (world) =>
    withObject(world, 'secret', ['--driver', 'vault'], async (name) => {
      assert.equal((await inspect(world, 'secret', name)).Spec.Driver.Name, 'vault');
      return effect('`Spec.Driver`');
    }),
};

interface Compose {
  readonly command?: string;
  readonly services?: readonly string[];
  readonly image?: string;
  readonly replicas?: number;
}

function composeFile(
  world: World,
  { services = ['web'], image = world.image, replicas = 0 }: Compose = {},
): string {
  const path = join(world.folder, `${newName()}.yml`);
  const service = (name: string) =>
    `  ${name}:\n    image: ${image}\n    command: ["sleep", "1000000"]\n    stop_grace_period: 0s\n    deploy: { replicas: ${replicas} }\n`;
  writeFileSync(path, `version: "3.8"\nservices:\n${services.map(service).join('')}`);
  return path;
}

async function withStack(
  world: World,
  flags: readonly string[],
  check: (name: string, output: string) => Promise<Result>,
  compose?: Compose,
): Promise<Result> {
  const name = newName();
  const path = composeFile(world, compose);
  const quick = flags.includes('--resolve-image') ? [] : ['--resolve-image', 'never'];
  try {
    const { stdout, stderr } = await docker(world, [
      'stack',
      'deploy',
      ...quick,
      ...flags,
      '--compose-file',
      path,
      name,
    ]);
    return await check(name, `${stdout}${stderr}`);
  } finally {
    await tryDocker(world, ['stack', 'rm', name]);
  }
}

async function servicesOf(world: World, stack: string): Promise<string[]> {
  const { stdout } = await docker(world, ['stack', 'services', '--format', '{{.Name}}', stack]);
  return stdout.split('\n').filter(Boolean).sort();
}

function own(command: string, flag: string, run: FlagCase['run']): FlagCase {
  return { command, flag, run };
}

const stacks: readonly FlagCase[] = [
  own('docker stack deploy', '', (world) =>
    withStack(world, [], async (name) => {
      assert.deepEqual(await servicesOf(world, name), [`${name}_web`]);
      return effect('its services are there');
    }),
  ),
  own('docker stack deploy', '--compose-file', (world) =>
    withStack(world, [], async (name) => {
      assert.deepEqual(await servicesOf(world, name), [`${name}_web`]);
      return effect("the file's services");
    }),
  ),
  own('docker stack deploy', '--detach', (world) =>
    withStack(world, ['--detach=false'], async (name, output) => {
      assert.match(output, /converged/);
      const { stdout } = await docker(world, [
        'stack',
        'deploy',
        '--detach',
        '--resolve-image',
        'never',
        '-c',
        composeFile(world),
        name,
      ]);
      assert.doesNotMatch(stdout, /converged/);
      return effect('returns at once; `--detach=false` waits until the services have converged');
    }),
  ),
  own('docker stack deploy', '--prune', (world) =>
    withStack(
      world,
      [],
      async (name) => {
        const fewer = composeFile(world);
        await docker(world, ['stack', 'deploy', '--resolve-image', 'never', '-c', fewer, name]);
        assert.equal((await servicesOf(world, name)).length, 2);
        await docker(world, ['stack', 'deploy', '--resolve-image', 'never', '--prune', '-c', fewer, name]);
        assert.deepEqual(await servicesOf(world, name), [`${name}_web`]);
        return effect('services that the file no longer has are gone');
      },
      { services: ['web', 'other'] },
    ),
  ),
  own('docker stack deploy', '--quiet', (world) =>
    withStack(world, ['--quiet', '--detach=false'], async (name, output) => {
      assert.doesNotMatch(output, /converged|overall progress/);
      assert.equal((await servicesOf(world, name)).length, 1);
      return effect('no progress is printed');
    }),
  ),
  own('docker stack deploy', '--resolve-image', (world) =>
    withStack(world, ['--resolve-image', 'never'], async (name) => {
      const { Spec } = await inspect(world, 'service', `${name}_web`);
      assert.equal(at(Spec, 'TaskTemplate.ContainerSpec.Image'), world.image);
      return effect('`never`: the image stays as written');
    }),
  ),
  own('docker stack deploy', '--with-registry-auth', (world) => {
    const repository = newName();
    return withStack(
      world,
      ['--with-registry-auth', '--resolve-image', 'never'],
      () => askedWithCredentials(world, repository),
      { image: `${world.registry}/${repository}:1`, replicas: 1 },
    );
  }),
  own('docker stack config', '', async (world) => {
    const { stdout } = await docker(world, ['stack', 'config', '--compose-file', composeFile(world)]);
    assert.match(stdout, /image: busybox/);
    return effect('the file as it is understood (by the client alone)');
  }),
  own('docker stack config', '--compose-file', async (world) => {
    const files = [
      '--compose-file',
      composeFile(world),
      '--compose-file',
      composeFile(world, { services: ['b'] }),
    ];
    const { stdout } = await docker(world, ['stack', 'config', ...files]);
    assert.match(stdout, /^ {2}b:$[\s\S]*^ {2}web:$/m);
    return effect('several files in one (by the client alone)');
  }),
  own('docker stack config', '--skip-interpolation', async (world) => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the compose file's own variable
    const path = composeFile(world, { image: '${NOWHERE:-busybox}' });
    const { stdout } = await docker(world, ['stack', 'config', '--skip-interpolation', '-c', path]);
    assert.match(stdout, /\$\{NOWHERE:-busybox\}/);
    return effect('variables stay (by the client alone)');
  }),
  own('docker stack rm', '', (world) =>
    withStack(world, [], async (name) => {
      await docker(world, ['stack', 'rm', name]);
      assert.deepEqual(await servicesOf(world, name).catch(() => []), []);
      return effect('its services are gone');
    }),
  ),
  own('docker stack rm', '--detach', (world) =>
    withStack(world, [], async (name) => {
      await docker(world, ['stack', 'rm', '--detach=false', name]);
      assert.deepEqual(await servicesOf(world, name).catch(() => []), []);
      return effect('returns at once; `--detach=false` waits until the tasks are gone');
    }),
  ),
];

export const objectCases: readonly FlagCase[] = [
  ...creations('secret'),
  ...creations('config'),
  secretDriver,
  ...stacks,
];
