/**
 * Memory for the bytes of large snapshots: shared, so that a thread beside the loop can read it as it is.
 *
 * V8 does not count shared memory as its own. Of what it counts, each 64 MB more have it mark its whole heap, which holds
 * the loop up once there are a million objects. What it does not count it does not miss either: nothing makes it look for
 * snapshots that nobody needs any more. So when too much of that is left over, it is made to look, once.
 */
const leastSharedBytes = 2 ** 22;
/** The snapshot before this one may still be there, and what one grew from: twice the largest and a little, or what is little anyhow. */
const mostLeftOver = 2.5;
const littleBytes = 2 ** 28;
/** So much more has V8 look for what is not needed any more. */
const noticedBytes = 2 ** 27;

/** How large those are that have not been collected. (To hold them weakly and look would keep them for one time more.) */
const sharedBytes: number[] = [];
const collected = new FinalizationRegistry<number>((bytes) => {
  sharedBytes.splice(sharedBytes.indexOf(bytes), 1);
});

/** Room for `bytes`; what stands in it is undefined. */
export function roomFor(bytes: number): Buffer {
  if (bytes < leastSharedBytes) return Buffer.allocUnsafe(bytes);
  // Never touched, so it takes no memory; but it counts.
  if (isTooMuchLeftOver(bytes)) void new ArrayBuffer(noticedBytes);
  const memory = new SharedArrayBuffer(bytes);
  sharedBytes.push(bytes);
  collected.register(memory, bytes);
  return Buffer.from(memory);
}

/** Whether another thread can read `data` where it is. */
export function isShared(data: Uint8Array): boolean {
  return data.buffer instanceof SharedArrayBuffer;
}

function isTooMuchLeftOver(askedBytes: number): boolean {
  const allBytes = sharedBytes.reduce((sum, bytes) => sum + bytes, 0);
  const largestBytes = Math.max(askedBytes, ...sharedBytes);
  return allBytes > Math.max(littleBytes, mostLeftOver * largestBytes);
}
