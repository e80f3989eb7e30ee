/** Exit statuses, help, and flags that docker has: known, or refused by name. No daemon is asked. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { exitStatusOf, makeProgram } from '../../cli/program.ts';
import { makeProgram as makeDaemonProgram, readFlags, tlsOf } from '../../cli/shoald-flags.ts';
import { takeSwitchValues, UsageError } from '../../cli/usage.ts';
import { findCorpus } from '../corpus.ts';
import { runProgram, TestDaemon } from './daemon.ts';

const nowhere = ['-H', 'unix:///nowhere/shoal.sock'];

/** Runs the client in this process: its exit status, and what it tells on standard error. */
async function tryShoal(...args: string[]): Promise<{ status: number; told: string }> {
  const program = makeProgram();
  let told = '';
  const listen = (command: Command): void => {
    command.configureOutput({
      writeErr: (text) => {
        told += text;
      },
    });
    for (const one of command.commands) listen(one);
  };
  listen(program);
  try {
    await program.parseAsync(takeSwitchValues(program, [...nowhere, ...args]), { from: 'user' });
  } catch (error) {
    return { status: exitStatusOf(error), told: `${told}${String(error)}` };
  }
  return { status: 0, told };
}

describe('cli: usage', function () {
  this.timeout(120_000);

  const wrong: [string, string[], RegExp][] = [
    ['an unknown command', ['swim'], /unknown command 'swim'/],
    ['an unknown verb', ['service', 'swim'], /unknown command 'swim'[\s\S]*shoal service --help/],
    ['an unknown flag', ['service', 'ls', '--swim'], /unknown option '--swim'/],
    ['a missing argument', ['service', 'create'], /missing required argument 'image'/],
    ['a bad count', ['service', 'create', '--replicas', 'x', 'a'], /--replicas: "x" is not a whole number/],
    [
      'a flag that is not there yet',
      ['service', 'create', '--credential-spec', 'x', 'a'],
      /--credential-spec is not supported yet/,
    ],
    [
      'a bad mode',
      ['service', 'create', '--mode', 'job', 'a'],
      /--mode: "job" is not one of replicated, glob/,
    ],
    ['a bad pair', ['service', 'scale', 'web'], /"web" is not SERVICE=REPLICAS/],
    ['a bad filter', ['node', 'ls', '--filter', 'x'], /--filter "x": write KEY=VALUE/],
    ['a bad host', ['-H', 'tcp:/x', 'node', 'ls'], /is not a host/],
    ['a switch that is neither', ['node', 'rm', '--force=perhaps', 'x'], /"perhaps" for "--force"/],
    ['a bad role', ['swarm', 'join-token', 'chief'], /role: "chief" is not one of worker, manager/],
    ['no compose file', ['stack', 'deploy', 'app'], /-c\/--compose-file/],
  ];
  for (const [name, args, words] of wrong) {
    it(`${name} is status 2`, async () => {
      const { status, told } = await tryShoal(...args);
      assert.equal(status, 2, told);
      assert.match(told, words);
    });
  }

  it('a daemon that is not there is status 1, with what to do', async () => {
    const { status, told } = await tryShoal('node', 'ls');
    assert.equal(status, 1);
    assert.match(
      told,
      /cannot connect to the Shoal daemon at \/nowhere\/shoal\.sock.*Is shoald running\?.*-H or SHOAL_HOST/,
    );
  });

  it('the process ends with that status: 0 for help, versions and a noun alone, 1 and 2', async () => {
    const status = async (...args: string[]): Promise<number | null> =>
      (await runProgram('shoal', [...nowhere, ...args])).status;
    const zero = [['--help'], ['--version'], ['service', 'create', '--help'], [], ['stack']];
    assert.deepEqual(await Promise.all(zero.map((args) => status(...args))), [0, 0, 0, 0, 0]);
    assert.deepEqual(await Promise.all([status('node', 'ls'), status('node', 'ls', '--swim')]), [1, 2]);
  });

  it('switches take true and false, and a container’s words are left alone', () => {
    const take = (line: string): string[] => takeSwitchValues(makeProgram(), line.split(' '));
    assert.deepEqual(take('node rm --force=true x'), ['node', 'rm', '--force', 'x']);
    assert.deepEqual(take('node rm -f=0 x'), ['node', 'rm', 'x']);
    assert.deepEqual(take('service create --env A=true --tty=t img --flag=false'), [
      ...['service', 'create', '--env', 'A=true', '--tty', 'img', '--flag=false'],
    ]);
    assert.deepEqual(take('service update --env-add --x=false web'), [
      'service',
      'update',
      '--env-add',
      '--x=false',
      'web',
    ]);
    assert.throws(() => take('node rm --force=x y'), UsageError);
  });
});

const flagsPath = join(findCorpus(), 'docker-api', 'cli-flags.json');

interface DockerFlags {
  readonly commands: Record<
    string,
    { aliases: string | null; flags: { flag: string; short: string | null; type: string }[] }
  >;
}

describe('cli: docker’s flags', () => {
  it('every flag of docker’s is there under its name and short form, and takes a value where docker’s does', function () {
    if (!existsSync(flagsPath)) return this.skip();
    const { commands } = JSON.parse(readFileSync(flagsPath, 'utf8')) as DockerFlags;
    const program = makeProgram();
    const lacking: string[] = [];
    for (const [name, { flags, aliases }] of Object.entries(commands)) {
      const [, noun, verb] = name.split(' ');
      const command = program.commands
        .find((one) => one.name() === noun)
        ?.commands.find((one) => one.name() === verb);
      const names = [command?.name(), ...(command?.aliases() ?? [])];
      for (const alias of (aliases ?? '').split(', ').filter(Boolean)) {
        if (!names.includes(alias.split(' ').at(-1))) lacking.push(`${alias}: no such alias`);
      }
      for (const { flag, short, type } of flags) {
        const option = command?.options.find((one) => one.long === flag);
        if (!option) lacking.push(`${name} ${flag}`);
        else if (short && option.short !== short) lacking.push(`${name} ${flag}: not ${short}`);
        else if (option.required !== (type !== 'bool') && !option.optional)
          lacking.push(`${name} ${flag}: ${type}`);
      }
    }
    assert.deepEqual(lacking, []);
  });
});

describe('shoald: flags', function () {
  this.timeout(120_000);
  let folder: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-cli-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const wrong: [string[], RegExp][] = [
    [['--swim'], /unknown option '--swim'/],
    [['swim'], /too many arguments/],
    [['--listen-addr', 'x:99999'], /--listen-addr "x:99999" is not an address/],
    [['--advertise-addr', 'a b'], /--advertise-addr "a b" is not an address/],
    [['--metrics-addr', ':x'], /--metrics-addr ":x" is not an address/],
    [['--engine', 'magic'], /--engine "magic": write unix:\/\/\/PATH or simulated/],
    [['--host', 'http://x'], /--host "http:\/\/x": write unix:\/\/\/PATH or tcp/],
    [['--host', 'tcp://127.0.0.1:1'], /--host tcp:\/\/127\.0\.0\.1:1 needs --tlscacert/],
    [['--tlskey', '/nowhere'], /--tlscacert, --tlscert and --tlskey go together/],
    [['--log-level', 'loud'], /--log-level <level>' argument 'loud' is invalid/],
    [['--name', '-'], /--name "-"/],
    [['--node-generic-resource', 'gpu'], /--node-generic-resource "gpu": write NAME=AMOUNT or NAME=ID/],
    [['--node-generic-resource', 'gpu=2,gpu=u1'], /"gpu=u1": give gpu one amount, or every piece of it/],
    [['--node-generic-resource', 'gpu=u1', '--node-generic-resource', 'gpu=u1'], /"gpu=u1": give gpu one/],
  ];
  for (const [args, words] of wrong) {
    it(`${args.join(' ')} is refused`, () => {
      let told = '';
      const program = makeDaemonProgram().configureOutput({
        writeErr: (text) => {
          told += text;
        },
      });
      assert.throws(
        () => tlsOf(readFlags(args, program)),
        (error) => words.test(`${told}${String(error)}`),
      );
    });
  }

  it('the process ends with 0 for help, with 2 for wrong usage, and has touched nothing then', async () => {
    const data = join(folder, 'd');
    const [help, bad] = await Promise.all([
      runProgram('shoald', ['--help']),
      runProgram('shoald', ['--data-dir', data, '--engine', 'magic']),
    ]);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /--data-dir <path>[\s\S]*\/var\/lib\/shoal/);
    assert.equal(bad.status, 2);
    assert.equal(existsSync(data), false);
  });

  it('a data directory that can’t be made is named', async () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    const { status, stderr } = await runProgram('shoald', ['--data-dir', join(file, 'd')]);
    assert.equal(status, 1);
    assert.match(stderr, /--data-dir: the folder .* can't be used/);
  });

  it('what another daemon uses is refused: its data, its socket, its port; kill -9 frees all of it', async () => {
    const daemon = await TestDaemon.start('n1');
    const other = await TestDaemon.start('n2', ['--listen-addr', daemon.address]);
    try {
      await daemon.out('swarm', 'init');
      const sameData = await runProgram('shoald', [
        '--data-dir',
        daemon.dataDir,
        '--host',
        `unix://${folder}/s`,
      ]);
      assert.equal(sameData.status, 1);
      assert.match(sameData.stderr, /--data-dir .* is in use by another shoald/);
      const sameSocket = await runProgram('shoald', [
        '--data-dir',
        join(folder, 'e'),
        '--host',
        `unix://${daemon.socket}`,
      ]);
      assert.equal(sameSocket.status, 1);
      assert.match(sameSocket.stderr, /can't listen on unix:.*another process listens there/);
      const samePort = await other.shoal('swarm', 'init');
      assert.equal(samePort.status, 1);
      assert.match(samePort.stderr, /cannot listen on .*another process uses this port; .*--listen-addr/);
      await daemon.end('SIGKILL');
      await daemon.run();
      assert.equal((await daemon.shoal('node', 'ls')).status, 0);
    } finally {
      await Promise.all([daemon.destroy(), other.destroy()]);
    }
  });
});
