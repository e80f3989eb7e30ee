/**
 * Every flag of every swarm command of the stock docker CLI, against shoald with a real engine: it has its effect, or
 * is refused in words that name it. With SHOAL_WRITE_FLAGS set the table of results is written to docs/.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FlagCase, outcomeOf, tryDocker, type World } from '../conformance/docker-cli/case.ts';
import { clusterCases } from '../conformance/docker-cli/cluster.ts';
import { listingCasesAll, listingsAreReady } from '../conformance/docker-cli/listings.ts';
import { membershipCases } from '../conformance/docker-cli/membership.ts';
import { objectCases } from '../conformance/docker-cli/objects.ts';
import { prepare } from '../conformance/docker-cli/prepare.ts';
import { registryProgram } from '../conformance/docker-cli/registry.ts';
import { credentials, serviceCreateCases } from '../conformance/docker-cli/service-create.ts';
import { serviceUpdateCases } from '../conformance/docker-cli/service-update.ts';
import { page, type Row } from '../conformance/docker-cli/table.ts';
import { Lab, labMissing, repositoryRoot } from './lab.ts';

const pagePath = join(repositoryRoot, 'docs', 'docker-cli-flags.md');
/** The client whose flags the page lists. */
const listedClient = '28.2.2';
const parallel = 4;

const spread = [...serviceCreateCases, ...serviceUpdateCases, ...listingCasesAll, ...objectCases];
const wanted = process.env.SHOAL_FLAGS === undefined ? undefined : new RegExp(process.env.SHOAL_FLAGS);
const isWanted = ({ command, flag }: FlagCase) => wanted === undefined || wanted.test(`${command} ${flag}`);

describe('lab: the docker CLI’s flags', () => {
  let lab: Lab;
  let world: World;
  let version = '';
  const outcomes = new Map<FlagCase, Promise<Row | Error>>();

  before(async function () {
    this.timeout(600_000);
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-flags');
    const [first, second] = [lab.host(1), lab.host(2)];
    await Promise.all([first.startShoald(), second.startShoald()]);
    await first.shoal('swarm', 'init', '--advertise-addr', first.address);
    const folder = mkdtempSync(join(tmpdir(), 'shoal-flags-'));
    const registry = '127.0.0.1:5000';
    const registryLog = join(folder, 'registry.log');
    writeFileSync(registryLog, '');
    const auths = { [registry]: { auth: credentials } };
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ auths }));
    // Ends with the host.
    void first.exec(process.execPath, registryProgram, '5000', registryLog).catch(() => undefined);
    world = {
      client: process.env.SHOAL_DOCKER_CLI ?? 'docker',
      folder,
      registry,
      registryLog,
      socket: first.shoalSocket,
      otherSocket: second.shoalSocket,
      engineSocket: first.dockerSocket,
      address: first.address,
      otherAddress: second.address,
      image: 'busybox:lab',
      otherExec: async (...command) => (await second.exec(...command)).stdout,
      shoal: (...args) => first.shoal(...args),
      restartOther: async () => {
        await second.killShoald('SIGTERM');
        await second.startShoald();
      },
    };
    version = (await tryDocker(world, ['version', '--format', '{{.Client.Version}}'])).stdout.trim();
    await prepare(world);
    await listingsAreReady(world);
    start([...membershipCases, ...clusterCases].filter(isWanted), 1);
    start(spread.filter(isWanted), parallel);
  });

  after(async () => {
    await Promise.allSettled(outcomes.values());
    if (world) rmSync(world.folder, { recursive: true, force: true });
    await lab?.down();
  });

  /** Runs cases, so many at a time, in order. */
  function start(cases: readonly FlagCase[], lanes: number): void {
    const running: Promise<unknown>[] = [];
    for (const [index, one] of cases.entries()) {
      const before = running[index - lanes] ?? Promise.resolve();
      const outcome = before.then(() => rowOf(one)).catch((error: unknown) => error as Error);
      running.push(outcome);
      outcomes.set(one, outcome);
    }
  }

  async function rowOf(one: FlagCase): Promise<Row> {
    return { command: one.command, flag: one.flag, result: await outcomeOf(one, world) };
  }

  for (const one of [...spread, ...membershipCases, ...clusterCases].filter(isWanted)) {
    it(`${one.command} ${one.flag}`.trim(), async function () {
      this.timeout(600_000);
      const { command, flag } = one;
      if (version !== listedClient && !(await knows(command, flag))) return this.skip();
      const outcome = await outcomes.get(one);
      if (outcome instanceof Error) throw outcome;
    });
  }

  /** Whether this client has the command, and the flag, at all. */
  async function knows(command: string, flag: string): Promise<boolean> {
    const { stdout } = await tryDocker(world, [...command.split(' ').slice(1), '--help']);
    return flag === ''
      ? stdout.includes(`${command} `) || stdout.includes(`${command}\n`)
      : stdout.includes(`${flag} `);
  }

  it('the page in docs/ says what was found', async function () {
    if (wanted !== undefined || version !== listedClient) return this.skip();
    const rows = (await Promise.all(outcomes.values())).filter((row): row is Row => !(row instanceof Error));
    const text = page(version, rows);
    if (process.env.SHOAL_WRITE_FLAGS) writeFileSync(pagePath, text);
    assert.equal(readFileSync(pagePath, 'utf8'), text);
  });
});
