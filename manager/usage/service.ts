/** shoal.v1.Usage on the cluster's port: a thin binding. It checks roles and keeps no state. */
import type * as grpc from '@grpc/grpc-js';
import { ShoalError } from '../../proto/errors.ts';
import type { UsageReport } from '../../proto/generated/shoal/v1/UsageReport.ts';
import type { UsageWishes } from '../../proto/generated/shoal/v1/UsageWishes.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { type RequireCaller, type RpcServer, requireRole } from '../../proto/rpc.ts';
import { failStream } from '../../proto/rpc-status.ts';
import { closeWith, sinkOf } from '../../proto/rpc-stream.ts';
import type { UsageBoard } from './board.ts';

/** Registers shoal.v1.Usage for callers that `requireCaller` lets pass; `board` is undefined while this manager does not lead. */
export function registerUsage(
  server: RpcServer,
  board: () => UsageBoard | undefined,
  requireCaller: RequireCaller = requireRole,
): void {
  server.addService('Usage', {
    Watch: (call: grpc.ServerDuplexStream<UsageReport, UsageWishes>) => {
      try {
        const { nodeId } = requireCaller(call, 'worker', 'manager');
        const current = board();
        if (current === undefined) throw notMeasured();
        const handle = current.watch(asId<NodeId>(nodeId), sinkOf(call));
        call.on('data', (report) => handle.report(report));
        call.on('end', () => call.end());
        closeWith(call, handle);
      } catch (error) {
        failStream(call, error);
      }
    },
  });
}

/** What a manager that does not lead says. */
export function notMeasured(): ShoalError {
  return new ShoalError('not-leader', 'what tasks use is told to the leader, which this manager is not');
}
