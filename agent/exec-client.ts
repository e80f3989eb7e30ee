/**
 * The agent's end of shoal.v1.Exec/Carry: one connection to the manager that a client asked, for one command. It retries
 * nothing and remembers nothing.
 */
import { isShoalError, messageOf } from '../proto/errors.ts';
import type { ExecOrder__Output as ExecOrder } from '../proto/generated/shoal/v1/ExecOrder.ts';
import type { ExecReport } from '../proto/generated/shoal/v1/ExecReport.ts';
import { createChannel, type NodeIdentity } from '../proto/rpc.ts';
import { drained } from '../proto/rpc-stream.ts';

/** Orders as they come; ends when the manager hangs up. */
export interface ExecCarriage extends AsyncIterable<ExecOrder> {
  /** Resolves when there is room for more; a manager that is gone resolves too. */
  send(report: ExecReport): Promise<void>;
  close(): void;
}

/** A person at a terminal bears a busy machine's pause better than the end of the command. */
const keepalive = { timeMs: 10_000, timeoutMs: 10_000 };

export type DialExec = (address: string) => ExecCarriage;

/** Dials over gRPC, with TLS and the node's certificate. */
export function grpcExecDial(identity: () => NodeIdentity): DialExec {
  return (address) => {
    const shown = identity();
    const channel = createChannel(address, {
      identity: shown,
      roots: shown.rootsPem,
      serverName: 'swarm-manager',
      keepalive,
    });
    const call = channel.client('Exec').Carry();
    let isOver = false;
    const over = (): void => {
      isOver = true;
    };
    call.on('error', over);
    call.on('close', over);
    return {
      async send(report) {
        if (isOver || call.write(report)) return;
        await drained(call);
      },
      async *[Symbol.asyncIterator]() {
        for await (const order of call) yield order as ExecOrder;
      },
      close() {
        // What was written goes first.
        call.end();
        call.once('status', () => channel.close());
        if (isOver) channel.close();
      },
    };
  };
}

/** A fault as a report of it. */
export function failureReport(error: unknown): ExecReport {
  const code = isShoalError(error) ? error.code : 'internal';
  return { failure: { code, message: messageOf(error) } };
}
