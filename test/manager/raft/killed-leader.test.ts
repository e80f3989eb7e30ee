/**
 * Three members in processes of their own, on real disks and TLS, under load: the leader is killed (SIGKILL), another one
 * takes over, the killed one is started again; it must never depose that healthy leader, and nothing that was
 * acknowledged may be missing. Two rounds here; SHOAL_KILL_ROUNDS says how many (20 for the record).
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Member } from '../../../manager/raft/contract.ts';
import { PutClient, putRequest } from '../../bench/put-protocol.ts';
import { clusterId, MemberProcess } from '../../bench/raft-member.ts';
import { waitFor } from '../../lab/lab.ts';
import { makeRoot, type TestRoot } from '../../proto/certificates.ts';

const rounds = Number(process.env.SHOAL_KILL_ROUNDS ?? 2);
const clients = 8;
const boundMs = 60_000;

interface Seat {
  process: MemberProcess;
  member: Member;
  clientAddress: string;
}

describe('a killed leader that comes back under load', function () {
  this.timeout(rounds * boundMs + boundMs);
  const seats: Seat[] = [];
  let folder: string;
  let root: TestRoot;
  let isLoading = true;
  let acknowledged = 0;

  async function start(raftId: number, again?: string): Promise<Seat> {
    const identity = await root.issue({ nodeId: `node-${raftId}`, role: 'manager', clusterId });
    const child = new MemberProcess();
    const members = seats.map(({ member }) => member);
    const order = { raftId, folder: join(folder, String(raftId)), identity, members };
    try {
      const { member, clientAddress } = await child.start({ ...order, ...(again && { again }) });
      return { process: child, member, clientAddress };
    } catch (error) {
      await child.end();
      throw error;
    }
  }

  before(async () => {
    root = await makeRoot();
    folder = mkdtempSync(join(tmpdir(), 'shoal-killed-'));
    for (let raftId = 1; raftId <= 3; raftId += 1) {
      const seat = await start(raftId);
      seats.push(seat);
      if (raftId > 1) await seats[0]!.process.admit(seat.member);
    }
  });

  after(async () => {
    isLoading = false;
    await Promise.all(seats.map(({ process: child }) => child.end()));
    rmSync(folder, { recursive: true, force: true });
  });

  /** What a client was told of its puts, which it numbers from 1. */
  interface Told {
    lastAcknowledged: number;
    /** Of these it does not know: the member was lost, or nobody led. */
    readonly unsure: Set<number>;
  }

  /** Puts through one member after the other, whichever answers. */
  async function load(number: number): Promise<Told> {
    const told: Told = { lastAcknowledged: 0, unsure: new Set() };
    let count = 0;
    for (let turn = number; isLoading; turn += 1) {
      const client = new PutClient(seats[turn % seats.length]!.clientAddress);
      try {
        while (isLoading) {
          count += 1;
          await client.put(putRequest(Buffer.from(`client-${number}#${count}`), randomBytes(256)));
          told.lastAcknowledged = count;
          acknowledged += 1;
        }
      } catch {
        told.unsure.add(count);
        // It was killed, or nobody leads: the next one is asked.
      } finally {
        client.close();
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return told;
  }

  /** Every put that was acknowledged must have been applied by the member. */
  async function checkNothingIsLost(seat: Seat, clients: readonly Told[]): Promise<void> {
    const counted = await seat.process.counted();
    for (const [number, { lastAcknowledged, unsure }] of clients.entries()) {
      const { last = 0, missing = new Set<number>() } = counted.get(`client-${number}`) ?? {};
      const lost = [...missing].filter((at) => at <= lastAcknowledged && !unsure.has(at));
      const where = `member ${seat.member.raftId}, client ${number}`;
      assert.ok(last >= lastAcknowledged, `${where}: the last put is ${last}, not ${lastAcknowledged}`);
      assert.deepEqual(lost, [], `${where}: acknowledged puts are missing`);
    }
  }

  const leader = async (): Promise<Seat | undefined> => {
    for (const seat of seats) if (await seat.process.leads()) return seat;
    return undefined;
  };

  it(`never deposes the healthy leader, and nothing acknowledged is lost, in ${rounds} rounds`, async () => {
    const loading = Array.from({ length: clients }, (_, number) => load(number));
    for (let round = 1; round <= rounds; round += 1) {
      const killed = await waitFor('one to lead', boundMs, leader);
      killed.process.kill();
      const next = await waitFor('another one to lead', boundMs, async () => {
        const found = await leader();
        return found !== killed && found;
      });
      const { term } = await next.process.role();
      const { raftId, address } = killed.member;
      Object.assign(killed, await start(raftId, address));
      const { applied } = await next.process.role();
      await waitFor('the killed one to catch up', boundMs, async () => {
        const role = await killed.process.role();
        return role.leaderId === next.member.raftId && role.applied >= applied;
      });
      const before = acknowledged;
      await waitFor('the load to go on', boundMs, () => acknowledged >= before + 10 * clients);
      const after = await next.process.role();
      assert.deepEqual(
        [after.leads, after.term],
        [true, term],
        `round ${round}: the leader and its term stay`,
      );
    }
    isLoading = false;
    const told = await Promise.all(loading);
    assert.ok(told.every(({ lastAcknowledged }) => lastAcknowledged > 0));
    const last = await waitFor('one to lead', boundMs, leader);
    const { applied } = await last.process.role();
    for (const seat of seats) {
      await waitFor('all to catch up', boundMs, async () => (await seat.process.role()).applied >= applied);
      await checkNothingIsLost(seat, told);
    }
  });
});
