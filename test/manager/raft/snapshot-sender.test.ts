import assert from 'node:assert/strict';
import { realClock } from '../../../cli/runtime.ts';
import { isShared, roomFor } from '../../../manager/raft/room.ts';
import { sendSnapshot } from '../../../manager/raft/snapshot-sender.ts';
import { createRpcServer } from '../../../proto/rpc.ts';
import { makeRoot } from '../../proto/certificates.ts';

const clusterId = 'a'.repeat(25);

describe('manager/raft/snapshot-sender', () => {
  const small = Buffer.alloc(2 ** 10, 1);
  const large = roomFor(2 ** 23).fill(1);

  for (const [size, data] of Object.entries({ small, large })) {
    it(`says why a ${size} one was not taken in: nobody is there, or nobody who takes it`, async () => {
      assert.equal(isShared(data), size === 'large', 'a large one is sent by a thread');
      const root = await makeRoot();
      const identity = await root.issue({ nodeId: 'node-1', role: 'manager', clusterId });
      const server = createRpcServer({ credentials: identity });
      const port = await server.listen('127.0.0.1:0');
      const way = { address: `127.0.0.1:${port}`, serverName: 'swarm-manager', identity } as const;
      const offer = () => ({
        clusterId,
        announcement: Buffer.alloc(0),
        data,
        deadline: realClock.now() + 60_000,
      });
      await assert.rejects(sendSnapshot({ ...way, keepalive: undefined }, offer()), /InstallSnapshot/);
      await server.close();
      await assert.rejects(sendSnapshot({ ...way, keepalive: undefined }, offer()), /ECONNREFUSED/);
    });
  }
});
