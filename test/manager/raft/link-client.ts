/** A bare link to a manager's port, for tests of what that says to whom. */
import { realClock } from '../../../cli/runtime.ts';
import { decodeFrame, type Frame } from '../../../manager/raft/frame.ts';
import type { Link } from '../../../proto/link.ts';
import { type NodeIdentity, openLink } from '../../../proto/rpc.ts';

export interface LinkClient {
  readonly link: Link;
  /** The first frame that comes. */
  readonly heard: Promise<Frame>;
  /** Why the link was closed, in the other side's words if it said any. */
  readonly ended: Promise<string>;
}

/** Opens a link to `address` as `identity`. */
export function linkTo(address: string, identity: NodeIdentity): LinkClient {
  const link = openLink(address, {
    identity,
    roots: identity.rootsPem,
    serverName: 'swarm-manager',
    clock: realClock,
  });
  let refusal: string | undefined;
  let hear: (frame: Frame) => void = () => {};
  const heard = new Promise<Frame>((resolve) => {
    hear = resolve;
  });
  const ended = new Promise<string>((resolve) => {
    link.start({
      frame: (bytes) => {
        const frame = decodeFrame(bytes);
        if (frame.kind === 'refusal') refusal = frame.error.message;
        hear(frame);
      },
      closed: (problem) => resolve(refusal ?? problem),
    });
  });
  return { link, heard, ended };
}
