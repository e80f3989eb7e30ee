/** What lets a node come back, and what does not, as a table. */
import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { bootstrapCluster } from '../../../manager/ca/bootstrap.ts';
import {
  judgeReturn,
  readReturnWithinMs,
  returnWithinLabel,
  x509Reader,
} from '../../../manager/ca/returning.ts';
import { createRoot, issueLocally, type LocalIssue } from '../../../manager/ca/root.ts';
import type { Cluster, ClusterNode } from '../../../proto/docker.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { returnStatement } from '../../../proto/identity.ts';
import { type NodeId, newId } from '../../../proto/ids.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';

const dayMs = 86_400_000;
const startMs = Date.parse('2026-01-01T00:00:00.000Z');

describe('a node that comes back', () => {
  const random = seededRandom(3);
  let cluster: Cluster;
  let node: ClusterNode;

  before(async () => {
    const made = await bootstrapCluster({ random, clock: new VirtualClock(startMs) });
    cluster = made.cluster;
    node = { ...made.node, Private: { ...made.node.Private } };
  });

  const issue = (now = startMs, of = cluster, nodeId = node.ID): Promise<LocalIssue> =>
    issueLocally(of, { nodeId, role: 'worker' }, { now, random });
  const knowing = (pem: string, formerPem?: string): ClusterNode => ({
    ...node,
    Private: {
      ...node.Private,
      Certificate: {
        State: 'issued',
        Csr: '',
        Pem: pem,
        ...(formerPem ? { FormerDigests: [x509Reader.digest(formerPem)] } : {}),
      },
    },
  });
  const bring = ({ identity }: LocalIssue, requestPem: string, keyPem = identity.keyPem) => ({
    certificatePem: identity.certificatePem,
    requestPem,
    signature: sign('sha256', returnStatement(identity.certificatePem, requestPem), keyPem),
  });
  const refuses = (run: () => void, code: string, message: RegExp): void => {
    assert.throws(run, (error) => isShoalError(error) && error.code === code && message.test(error.message));
  };

  it('is let in by its last certificate and the one before, in time, and by nothing else', async () => {
    const [older, former, last] = [await issue(), await issue(startMs + 1_000), await issue(startMs + 2_000)];
    const { requestPem } = await issue();
    const known = knowing(last.identity.certificatePem, former.identity.certificatePem);
    const endMs = startMs + 90 * dayMs;
    judgeReturn(cluster, known, bring(last, requestPem), startMs);
    judgeReturn(cluster, known, bring(former, requestPem), endMs + 29 * dayMs);
    refuses(
      () => judgeReturn(cluster, known, bring(older, requestPem), startMs),
      'permission-denied',
      /not the last one/,
    );
    refuses(
      () => judgeReturn(cluster, known, bring(last, requestPem), endMs + 31 * dayMs),
      'unauthenticated',
      /expired at 2026-04-01T00:00:02\.000Z.*no later than 720h.*`shoal swarm join`/,
    );
    refuses(
      () => judgeReturn(cluster, known, bring(last, requestPem, former.identity.keyPem), startMs),
      'permission-denied',
      /not signed with its key/,
    );
    const other = { ...bring(last, requestPem), requestPem: (await issue()).requestPem };
    refuses(
      () => judgeReturn(cluster, known, other, startMs),
      'permission-denied',
      /not signed with its key/,
    );
    refuses(
      () => judgeReturn(cluster, node, { ...bring(last, ''), certificatePem: 'x' }, 0),
      'invalid-argument',
      /./,
    );
  });

  it('is let in by a newer one of the present root, but not of one that was replaced', async () => {
    const last = await issue(startMs);
    const own = await issue(startMs + 100 * dayMs);
    const { requestPem } = await issue();
    const known = knowing(last.identity.certificatePem);
    judgeReturn(cluster, known, bring(own, requestPem), startMs + 100 * dayMs);
    const next = await createRoot({ now: startMs, random });
    const replaced: Cluster = {
      ...cluster,
      TLSInfo: { ...cluster.TLSInfo, TrustRoot: next.certificatePem },
      Private: { ...cluster.Private, CaKeyPem: next.keyPem },
    };
    // Who has the key of a root that was replaced may make such a one; that is why it was replaced.
    refuses(
      () => judgeReturn(replaced, known, bring(own, requestPem), startMs),
      'permission-denied',
      /not the last one/,
    );
    judgeReturn(replaced, known, bring(last, requestPem), startMs);
  });

  it('is not let in as another node, or into another cluster', async () => {
    const last = await issue();
    const { requestPem } = await issue();
    const known = knowing(last.identity.certificatePem);
    const other = { ...known, ID: newId<NodeId>(random) };
    refuses(
      () => judgeReturn(cluster, other, bring(last, requestPem), startMs),
      'permission-denied',
      /not of this cluster/,
    );
    const elsewhere = (await bootstrapCluster({ random, clock: new VirtualClock(startMs) })).cluster;
    refuses(
      () => judgeReturn(elsewhere, known, bring(last, requestPem), startMs),
      'permission-denied',
      /not of this cluster/,
    );
  });

  it('has as long as the cluster says, and none at all with 0s', async () => {
    assert.equal(readReturnWithinMs({}), 30 * dayMs);
    assert.equal(readReturnWithinMs({ [returnWithinLabel]: '1h30m' }), 5_400_000);
    for (const text of ['', 'long', '-1h', '5']) {
      assert.throws(() => readReturnWithinMs({ [returnWithinLabel]: text }), { code: 'invalid-argument' });
    }
    const last = await issue();
    const { requestPem } = await issue();
    const known = knowing(last.identity.certificatePem);
    const never = { ...cluster, Spec: { ...cluster.Spec, Labels: { [returnWithinLabel]: '0s' } } };
    judgeReturn(never, known, bring(last, requestPem), startMs + 90 * dayMs);
    refuses(
      () => judgeReturn(never, known, bring(last, requestPem), startMs + 90 * dayMs + 1),
      'unauthenticated',
      /expired/,
    );
  });
});
