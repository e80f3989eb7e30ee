/** A member that is removed while the leader answers it: nobody waits for ever. */
import assert from 'node:assert/strict';
import { removalNotice } from '../../../manager/raft/removal-notice.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { RaftCluster } from './raft-cluster.ts';

describe('a member that is removed while it waits for the leader', () => {
  let cluster: RaftCluster;

  beforeEach(async () => {
    cluster = new RaftCluster();
    await cluster.form(3);
    // What is committed from now on does not reach member 3.
    cluster.loses = ({ type, to }) => type === 'MsgApp' && to === 3;
    await cluster.wait(cluster.propose(1, 'unseen by 3'));
  });
  afterEach(() => cluster.stop());

  const remove = (): void => cluster.node(3).receive(removalNotice(1, 3, cluster.node(1).status().term));

  it('refuses a read whose answer comes later', async () => {
    const read = cluster.node(3).readBarrier();
    // The question is on its way: the answer takes longer than the notice.
    await cluster.clock.run(0.1);
    remove();
    await assert.rejects(cluster.wait(read), (error) => isShoalError(error, 'not-a-manager'));
  });

  it('says of a write that is answered later that its outcome is unknown here', async () => {
    const write = cluster.propose(3, 'written by 3');
    await cluster.clock.run(0.1);
    remove();
    await assert.rejects(cluster.wait(write), isShoalError);
  });
});
