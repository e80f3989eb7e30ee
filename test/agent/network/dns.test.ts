import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import packet from 'dns-packet';
import { DnsServer } from '../../../agent/network/dns.ts';
import { realClock } from '../../../cli/runtime.ts';
import { silentLog } from '../../../proto/ports.ts';
import { desired, endpoint, network, service } from './desired-objects.ts';

const port = 20_053;
const open = '127.0.0.91';
const inner = '127.0.0.92';
const front = 'net4097';
const many = Array.from({ length: 60 }, (_, at) => `10.60.1.${at + 10}`);

function state(addresses: readonly string[]) {
  const on = (networkId: string) => ({ networkId, virtualAddresses: [], aliases: [] });
  return desired(
    [
      network(4097, { gateways: [`${open}/24`] }),
      network(4098, { gateways: [`${inner}/24`], isInternal: true }),
    ],
    [
      service('web', {
        networks: [on(front)],
        endpoints: addresses.map((address) => endpoint(front, address)),
      }),
    ],
  );
}

describe('a server of names', () => {
  let server: DnsServer;
  beforeEach(async () => {
    server = new DnsServer({
      clock: realClock,
      log: silentLog,
      port,
      upstreams: async () => [],
    });
    await server.know(state(['10.60.1.10']));
    assert.deepEqual(await server.listen(state([])), []);
  });

  afterEach(() => server.stop());

  function query(name: string, edns = false): Buffer {
    return packet.encode({
      type: 'query',
      id: 7,
      flags: packet.RECURSION_DESIRED,
      questions: [{ type: 'A', name }],
      ...(edns && {
        additionals: [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: 4096,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: 0,
            flag_do: false,
            options: [],
          },
        ],
      }),
    });
  }

  async function udp(address: string, message: Buffer) {
    const socket = createSocket('udp4');
    try {
      socket.send(message, port, address);
      const [answer] = (await once(socket, 'message')) as [Buffer];
      return packet.decode(answer) as packet.DecodedPacket & { rcode: string };
    } finally {
      socket.close();
    }
  }

  async function tcp(address: string, message: Buffer): Promise<packet.DecodedPacket> {
    const socket = connect(port, address);
    socket.write(
      packet.streamEncode({ type: 'query', id: 7, questions: packet.decode(message).questions ?? [] }),
    );
    let received = Buffer.alloc(0);
    for await (const data of socket) {
      received = Buffer.concat([received, data as Buffer]);
      if (received.length >= 2 + received.readUInt16BE(0)) break;
    }
    return packet.decode(received.subarray(2)) as packet.DecodedPacket;
  }

  it('answers with authority, by the newest state, from the moment that it knows', async () => {
    const first = await udp(open, query('web'));
    assert.ok(first.flag_aa);
    assert.deepEqual(
      first.answers?.map((one) => 'data' in one && one.data),
      ['10.60.1.10'],
    );
    await server.know(state(['10.60.1.11']));
    const second = await udp(open, query('WEB'));
    assert.deepEqual(
      second.answers?.map((one) => 'data' in one && one.data),
      ['10.60.1.11'],
    );
  });

  it('shortens what is too long for a datagram, and tells all of it over TCP or where there is room', async () => {
    await server.know(state(many));
    const short = await udp(open, query('web'));
    assert.ok(short.flag_tc);
    assert.deepEqual(short.answers, []);
    assert.equal((await udp(open, query('web', true))).answers?.length, many.length);
    assert.equal((await tcp(open, query('web'))).answers?.length, many.length);
  });

  it('says of a foreign name that nobody answers; on an internal network, that there is none', async () => {
    assert.equal((await udp(open, query('example.com'))).rcode, 'SERVFAIL');
    assert.equal((await udp(inner, query('example.com'))).rcode, 'NXDOMAIN');
    assert.equal((await udp(inner, query('web'))).rcode, 'NXDOMAIN');
  });

  it('asks the asker’s own servers for foreign names, and for none of the cluster’s', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    const own = createSocket('udp4');
    const questions: (string | undefined)[] = [];
    own.on('message', (message, { port: from, address }) => {
      const { id, questions: asked = [] } = packet.decode(message);
      questions.push(asked[0]?.name);
      const answers = asked.map(({ name }) => ({ type: 'A' as const, name, data: '192.0.2.7' }));
      own.send(packet.encode({ type: 'response', id: id ?? 0, questions: asked, answers }), from, address);
    });
    own.bind(53, '127.0.0.93');
    await once(own, 'listening');
    try {
      server.useServers(new Map([[`${front}/127.0.0.1`, ['127.0.0.93']]]));
      const { answers } = await udp(open, query('example.com'));
      assert.deepEqual(
        answers?.map((one) => 'data' in one && one.data),
        ['192.0.2.7'],
      );
      await udp(open, query('web'));
      assert.equal((await udp(inner, query('example.com'))).rcode, 'NXDOMAIN');
      assert.deepEqual(questions, ['example.com']);
    } finally {
      own.close();
    }
  });

  it('outlives what is no question', async () => {
    const socket = createSocket('udp4');
    for (const bytes of [Buffer.alloc(0), Buffer.from('x'), Buffer.alloc(600, 255)])
      socket.send(bytes, port, open);
    assert.equal((await udp(open, query('web'))).answers?.length, 1);
    socket.close();
  });

  it('tells what it can’t open, and follows addresses that come and go', async () => {
    const elsewhere = desired([network(4097, { gateways: ['203.0.113.9/24'] })], []);
    const [problem] = await server.listen(elsewhere);
    assert.match(problem ?? '', /203\.0\.113\.9/);
    const free = createSocket('udp4');
    free.bind(port, open);
    await once(free, 'listening');
    free.close();
  });
});
