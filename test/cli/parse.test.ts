/** What people type, read: tables of text and meaning. */
import assert from 'node:assert/strict';
import {
  parseBytes,
  parseCpus,
  parseDuration,
  parseFields,
  parseFileReference,
  parseGenericResource,
  parseLabels,
  parseNetwork,
  parsePublish,
  parseRatio,
  parseUlimit,
  splitWords,
} from '../../cli/parse.ts';
import { parseMount } from '../../cli/parse-mount.ts';
import { parseEnvFile } from '../../cli/service-flags.ts';
import { UsageError } from '../../cli/usage.ts';

/** One test for each row: what is typed, and what it means; refused where no meaning is given. */
function table<T>(name: string, read: (text: string) => T, rows: [string, T?][]): void {
  describe(name, () => {
    for (const [text, meaning] of rows) {
      it(meaning === undefined ? `refuses ${JSON.stringify(text)}` : `reads ${JSON.stringify(text)}`, () => {
        if (meaning === undefined) assert.throws(() => read(text), UsageError);
        else assert.deepEqual(read(text), meaning);
      });
    }
  });
}

describe('cli: what people type', () => {
  table('durations', (text) => parseDuration(text, '--x'), [
    ['0', 0],
    ['10s', 10e9],
    ['1m30s', 90e9],
    ['1.5h', 5400e9],
    ['500ms', 5e8],
    ['3us', 3000],
    ['10'],
    ['ten'],
    ['10s!'],
    [''],
    ['-5s'],
  ]);

  table('sizes', (text) => parseBytes(text, '--x'), [
    ['0', 0],
    ['1048576', 1048576],
    ['512M', 512 * 2 ** 20],
    ['512mb', 512 * 2 ** 20],
    ['1.5g', 1.5 * 2 ** 30],
    ['2GiB', 2 * 2 ** 30],
    ['4k', 4096],
    ['1 g', 2 ** 30],
    ['x'],
    ['-1'],
    ['1x'],
  ]);

  table('CPUs', (text) => parseCpus(text, '--x'), [['0.5', 5e8], ['2', 2e9], ['.25', 25e7], ['a'], ['-1']]);
  table('ratios', (text) => parseRatio(text, '--x'), [['0', 0], ['0.25', 0.25], ['1', 1], ['1.1'], ['x']]);

  table('ports', parsePublish, [
    ['80', [{ Protocol: 'tcp', TargetPort: 80, PublishMode: 'ingress' }]],
    ['8080:80', [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' }]],
    ['53:53/udp', [{ Protocol: 'udp', TargetPort: 53, PublishedPort: 53, PublishMode: 'ingress' }]],
    [
      '8080-8081:80-81',
      [
        { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
        { Protocol: 'tcp', TargetPort: 81, PublishedPort: 8081, PublishMode: 'ingress' },
      ],
    ],
    [
      'mode=host,target=80,published=8080,protocol=tcp',
      [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' }],
    ],
    ['127.0.0.1:8080:80'],
    ['8080-8082:80-81'],
    ['0'],
    ['65536'],
    ['80/icmp'],
    ['published=80'],
    ['target=80,bogus=1'],
    ['target=80,mode=bridge'],
  ]);

  table('mounts', parseMount, [
    ['source=data,target=/data', { Type: 'volume', Source: 'data', Target: '/data' }],
    ['type=bind,src=/a,dst=/b,ro', { Type: 'bind', Source: '/a', Target: '/b', ReadOnly: true }],
    ['type=bind,src=/a,dst=/b,readonly=false', { Type: 'bind', Source: '/a', Target: '/b', ReadOnly: false }],
    [
      'type=volume,"source=a,b",target=/b,volume-nocopy,volume-label=x=y,volume-driver=nfs,volume-opt=o=addr',
      {
        Type: 'volume',
        Source: 'a,b',
        Target: '/b',
        VolumeOptions: {
          NoCopy: true,
          Labels: { x: 'y' },
          DriverConfig: { Name: 'nfs', Options: { o: 'addr' } },
        },
      },
    ],
    [
      'type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777',
      { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 2 ** 20, Mode: 0o1777 } },
    ],
    ['type=bind,target=/b'],
    ['source=a'],
    ['type=tmpfs,source=a,target=/t'],
    ['type=volume,target=/t,tmpfs-size=1m'],
    ['type=bind,source=/a,target=/b,volume-nocopy'],
    ['type=disk,target=/t'],
    ['target=/t,readonly=perhaps'],
    ['target=/t,colour=red'],
  ]);

  table('secrets and configs', (text) => parseFileReference(text, '--secret'), [
    ['word', { source: 'word', File: { Name: 'word', UID: '0', GID: '0', Mode: 0o444 } }],
    [
      'source=word,target=/etc/word,uid=5,gid=6,mode=0400',
      { source: 'word', File: { Name: '/etc/word', UID: '5', GID: '6', Mode: 0o400 } },
    ],
    ['src=word', { source: 'word', File: { Name: 'word', UID: '0', GID: '0', Mode: 0o444 } }],
    ['target=x'],
    ['source=a,mode=999'],
    ['source=a,colour=red'],
  ]);

  table('networks', parseNetwork, [
    ['back', { Target: 'back' }],
    ['name=back,alias=a,alias=b', { Target: 'back', Aliases: ['a', 'b'] }],
    ['name=back,driver-opt=a=b', { Target: 'back', DriverOpts: { a: 'b' } }],
    ['alias=a'],
    ['name=back,colour=red'],
  ]);

  table('ulimits', parseUlimit, [
    ['nofile=1024', { Name: 'nofile', Soft: 1024, Hard: 1024 }],
    ['nofile=1024:2048', { Name: 'nofile', Soft: 1024, Hard: 2048 }],
    ['memlock=-1:-1', { Name: 'memlock', Soft: -1, Hard: -1 }],
    ['nofile=2048:1024'],
    ['nofile'],
  ]);

  table('generic resources', (text) => parseGenericResource(text), [
    ['gpu=2', { DiscreteResourceSpec: { Kind: 'gpu', Value: 2 } }],
    ['gpu=UUID1', { NamedResourceSpec: { Kind: 'gpu', Value: 'UUID1' } }],
    ['gpu'],
  ]);

  table('words', splitWords, [
    ['sh -c "echo \'a b\'"', ['sh', '-c', "echo 'a b'"]],
    ["a 'b c' d\\ e", ['a', 'b c', 'd e']],
    ['', []],
    ['""', ['']],
  ]);

  it('fields keep quoted commas and what follows a second =', () => {
    assert.deepEqual(parseFields('a=1,"b=2,3",c=d=e,flag'), [
      ['a', '1'],
      ['b', '2,3'],
      ['c', 'd=e'],
      ['flag', 'true'],
    ]);
  });

  it('labels may lack a value and may hold =', () => {
    assert.deepEqual(parseLabels(['a', 'b=', 'c=d=e']), { a: '', b: '', c: 'd=e' });
  });

  it('env files: comments and empty lines are left out, bare keys come from the environment', () => {
    const text = '# a comment\n\nA=1\nB\nC\nD=x # y\n';
    assert.deepEqual(parseEnvFile(text, { B: 'two' }), ['A=1', 'B=two', 'D=x # y']);
  });
});
