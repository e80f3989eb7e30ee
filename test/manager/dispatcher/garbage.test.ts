import assert from 'node:assert/strict';
import fc from 'fast-check';
import { changeOfReport } from '../../../manager/dispatcher/status.ts';
import { dockerDescription, dockerTime } from '../../../manager/dispatcher/wire.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { taskStateOfWire, taskStates } from '../../../proto/task-state.ts';
import { makeTask, TestBed } from './cluster.ts';

/** Whatever the decoder can make of bytes: every field may be missing, and numbers may be any. */
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String);
const int32 = fc.integer();
const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('__proto__', 'constructor', ''));
const bytes = fc.uint8Array().map((array) => Buffer.from(array));
const some = <T extends object>(fields: T) => fc.record(fields as never, { requiredKeys: [] });

const status = some({
  timestamp: some({ seconds: int64, nanos: int32 }),
  state: fc.oneof(fc.constantFrom('RUNNING', 'FAILED', 'REMOVE'), text, int32 as never),
  message: text,
  err: text,
  container: some({ container_id: text, pid: int32, exit_code: int32 }),
  port_status: some({ ports: fc.array(some({ name: text, target_port: int32, published_port: int32 })) }),
});

const description = some({
  hostname: text,
  platform: some({ architecture: text, os: text }),
  resources: some({
    nano_cpus: int64,
    memory_bytes: int64,
    generic: fc.array(
      some({
        named_resource_spec: some({ kind: text, value: text }),
        discrete_resource_spec: some({ kind: text, value: int64 }),
      }),
    ),
  }),
  engine: some({
    engine_version: text,
    labels: fc.dictionary(text, text),
    plugins: fc.array(some({ type: text, name: text })),
  }),
  tls_info: some({ trust_root: bytes, cert_issuer_subject: bytes, cert_issuer_public_key: bytes }),
});

describe('what agents may send, whatever is in it', () => {
  it('of a task becomes a status that can be read, or nothing', () => {
    const bed = new TestBed();
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
    fc.assert(
      fc.property(status, (reported) => {
        const report = { task_id: 'a', status: reported as never };
        const change = changeOfReport(bed.store, asId<NodeId>('node1'), report, 0);
        if (change === undefined) return;
        assert.ok(change.kind === 'task' && change.fields.Status);
        const { Timestamp, State } = change.fields.Status;
        assert.ok(!Number.isNaN(Date.parse(Timestamp)), Timestamp);
        assert.ok(taskStates.includes(State), State);
      }),
      { numRuns: 2_000 },
    );
  });

  it('of a node becomes a description with numbers that are some', () => {
    fc.assert(
      fc.property(description, (sent) => {
        const { Resources, Hostname } = dockerDescription(sent as never);
        assert.equal(typeof Hostname, 'string');
        assert.ok(Number.isFinite(Resources.NanoCPUs) && Number.isFinite(Resources.MemoryBytes));
      }),
    );
  });

  it('of times and states is taken for none where it is none', () => {
    assert.equal(dockerTime({ seconds: '9'.repeat(18), nanos: 0 }), undefined);
    assert.equal(dockerTime({ seconds: '0', nanos: -5 }), undefined);
    assert.equal(dockerTime({ seconds: '0', nanos: 2 ** 31 - 1 }), undefined);
    assert.equal(dockerTime({ seconds: '0', nanos: 5_000_000 }), '1970-01-01T00:00:00.005Z');
    assert.equal(taskStateOfWire('constructor'), 'new');
    assert.equal(taskStateOfWire(99 as never), 'new');
  });
});
