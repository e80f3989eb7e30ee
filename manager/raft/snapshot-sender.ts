/**
 * A snapshot sent to another member: in chunks over gRPC, a large one from a thread of its own.
 *
 * In: where it goes, how this node shows itself there, the bytes. Out: it was taken in whole, or an error in words. gRPC
 * copies each chunk several times, in memory that V8 counts: beside a million objects those are all marked anew for
 * each 64 MB of it, and the leader stands still meanwhile. The thread has no objects but the chunks.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { messageOf } from '../../proto/errors.ts';
import { createChannel, type Keepalive, type NodeIdentity } from '../../proto/rpc.ts';
import { isShared } from './room.ts';
import { chunksOf } from './snapshot.ts';

/** Of a snapshot: some are under way at a time, each is copied several times, and others wait meanwhile. */
const chunkBytes = 2 ** 17;
const jobName = 'shoal-snapshot-sender';
/** It holds the modules of gRPC, and the chunks under way. */
const heapMegabytes = 128;

/** What the other side is offered. */
export interface SnapshotOffer {
  readonly clusterId: string;
  /** The message that has the snapshot, without its bytes (encodeMessages). */
  readonly announcement: Uint8Array;
  readonly data: Uint8Array;
  /** When it is given up; ms since the epoch. */
  readonly deadline: number;
}

/** Whom it is sent to, and as whom. */
export interface SnapshotWay {
  readonly address: string;
  readonly serverName: 'swarm-manager';
  readonly identity: NodeIdentity;
  readonly keepalive: Keepalive | undefined;
}

interface Job {
  readonly name: typeof jobName;
  readonly way: SnapshotWay;
  readonly offer: SnapshotOffer;
}

/** What the thread says at its end. */
interface Outcome {
  readonly failure?: string;
}

/** Sends a snapshot over a connection of its own. Rejects with an Error that says why it was not taken in. */
export function sendSnapshot(way: SnapshotWay, offer: SnapshotOffer): Promise<void> {
  return isShared(offer.data) ? sendBeside(way, offer) : sendHere(way, offer);
}

async function sendBeside(way: SnapshotWay, offer: SnapshotOffer): Promise<void> {
  const job: Job = { name: jobName, way, offer };
  const thread = new Worker(new URL(import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: heapMegabytes },
    execArgv: [],
  });
  const { failure } = await outcomeOf(thread);
  if (failure !== undefined) throw new Error(failure);
}

function outcomeOf(thread: Worker): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
    // After one of the two it says nothing new.
    thread.once('exit', (code) => reject(new Error(`the thread that sends it ended with code ${code}`)));
  });
}

function sendHere(way: SnapshotWay, offer: SnapshotOffer): Promise<void> {
  const { address, identity, serverName, keepalive } = way;
  const { clusterId, announcement, data, deadline } = offer;
  const channel = createChannel(address, {
    identity,
    roots: identity.rootsPem,
    serverName,
    ...(keepalive && { keepalive }),
  });
  return new Promise((resolve, reject) => {
    const call = channel.client('Raft').InstallSnapshot({ deadline }, (error) => {
      channel.close();
      if (error === null) resolve();
      else reject(new Error(error.details));
    });
    const chunks = chunksOf(data, chunkBytes);
    let isFirst = true;
    const push = () => {
      for (let next = chunks.next(); !next.done; next = chunks.next()) {
        const head = isFirst
          ? { message: Buffer.from(announcement), total_bytes: data.length, cluster_id: clusterId }
          : {};
        isFirst = false;
        // A Buffer: the field's encoder takes it as it is, and copies anything else.
        const { offset, data: chunk } = next.value;
        const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
        if (!call.write({ ...head, data: bytes, offset })) return;
      }
      call.end();
    };
    call.on('error', () => {});
    call.on('drain', push);
    push();
  });
}

async function carryOut({ way, offer }: Job): Promise<Outcome> {
  try {
    await sendHere(way, offer);
    return {};
  } catch (error) {
    return { failure: messageOf(error) };
  }
}

const given = workerData as Partial<Job> | null;
if (!isMainThread && given?.name === jobName) {
  void carryOut(given as Job).then((outcome) => parentPort?.postMessage(outcome));
}
