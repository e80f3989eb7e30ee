/** What the cases read: a secret, configs, a network, a service that writes lines, a stack. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { docker, type World } from './case.ts';
import { talker } from './listings.ts';

export async function prepare(world: World): Promise<void> {
  await docker(world, ['secret', 'create', 'flag-secret', '-'], { input: 'of a secret' });
  await docker(world, ['config', 'create', 'flag-config', '-'], { input: 'of a config' });
  await docker(world, ['config', 'create', 'flag-credentials', '-'], { input: '{}' });
  await docker(world, ['network', 'create', '--driver', 'overlay', '--attachable', 'flag-network']);
  const settings = ['--detach', '--no-resolve-image', '--stop-grace-period', '0s'];
  const detail = [
    '--container-label',
    'flag-detail=shown',
    '--log-driver',
    'json-file',
    '--log-opt',
    'labels=flag-detail',
  ];
  const talk = 'for i in 1 2 3; do echo line $i; done; sleep 1000000';
  await docker(world, [
    ...['service', 'create', ...settings, '--name', talker, '--replicas', '2', ...detail],
    ...[world.image, 'sh', '-c', talk],
  ]);
  const tick = 'while true; do echo tick; sleep 0.5; done';
  await docker(world, [
    'service',
    'create',
    ...settings,
    '--name',
    'flag-ticker',
    world.image,
    'sh',
    '-c',
    tick,
  ]);
  const compose = join(world.folder, 'flagstack.yml');
  writeFileSync(
    compose,
    `version: "3.8"\nservices:\n  web:\n    image: ${world.image}\n    command: ["sleep", "1000000"]\n    stop_grace_period: 0s\n    networks: [outer]\nnetworks:\n  outer: { external: true, name: flag-network }\n`,
  );
  await docker(world, ['stack', 'deploy', '--resolve-image', 'never', '-c', compose, 'flagstack']);
}
