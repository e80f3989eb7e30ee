/**
 * etcd's Put over gRPC, the little of it that a load needs, by hand over HTTP/2 (RFC 9113): one lean client for both
 * sides, so that its cost is small and the same in each, and for our members a server as lean. Keys and values are
 * bytes; of answers no more is looked at than whether they bring a message, which refusals do not.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

const path = '/etcdserverpb.KV/Put';
const messageHeadBytes = 5;
const frameHeadBytes = 9;
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

const frameTypes = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
} as const;
const endStream = 0x1;
const acknowledged = 0x1;
const endHeaders = 0x4;
const firstWindowBytes = 65_535;
const largestWindowBytes = 2 ** 31 - 1;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeadBytes + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  bytes.set(payload, frameHeadBytes);
  return bytes;
}

function numberBytes(number: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(number, 0);
  return bytes;
}

/** What each side says first: no memory for headers (setting 1: 0 bytes), and as much data as the other side likes. */
const greeting = Buffer.concat([
  frame(frameTypes.settings, 0, 0, Buffer.from([0, 1, 0, 0, 0, 0])),
  frame(frameTypes.windowUpdate, 0, 0, numberBytes(largestWindowBytes - firstWindowBytes)),
]);
const settingsHeard = frame(frameTypes.settings, acknowledged, 0, Buffer.alloc(0));

/** A header field as HPACK (RFC 7541) writes one that is not to be remembered; `name`: its number there, or a new one. */
function headerField(name: number | string, value: string): Buffer {
  const head =
    typeof name === 'string' ? [0, name.length, ...Buffer.from(name)] : name < 15 ? [name] : [15, name - 15];
  return Buffer.from([...head, value.length, ...Buffer.from(value)]);
}

const contentType = headerField(31, 'application/grpc');
/** `:method: POST` and `:scheme: http` are numbers 3 and 6 of HPACK's table, `:status: 200` is 8. */
const requestHeaders = Buffer.concat([
  Buffer.from([0x83, 0x86]),
  headerField(4, path),
  headerField(1, 'put'),
  contentType,
  headerField('te', 'trailers'),
]);
const responseHeaders = Buffer.concat([Buffer.from([0x88]), contentType]);
const okTrailers = headerField('grpc-status', '0');
const refusalHeaders = Buffer.concat([responseHeaders, headerField('grpc-status', '14')]);
const emptyMessage = Buffer.alloc(messageHeadBytes);

/** A PutRequest: field 1 the key, field 2 the value; each shorter than 16,384 bytes. */
export function putRequest(key: Uint8Array, value: Uint8Array): Buffer {
  return Buffer.concat([field(1, key), field(2, value)]);
}

/** The key of a PutRequest that putRequest made. */
export function keyOf(request: Uint8Array): Buffer {
  const bytes = Buffer.from(request.buffer, request.byteOffset, request.byteLength);
  const isLong = (bytes[1]! & 0x80) !== 0;
  const length = isLong ? (bytes[1]! & 0x7f) | (bytes[2]! << 7) : bytes[1]!;
  const start = isLong ? 3 : 2;
  return bytes.subarray(start, start + length);
}

function field(number: number, bytes: Uint8Array): Buffer {
  const { length } = bytes;
  const size = length < 0x80 ? [length] : [(length & 0x7f) | 0x80, length >> 7];
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...size]), bytes]);
}

interface FrameHandlers {
  headers(stream: number, ends: boolean): void;
  data(stream: number, bytes: Buffer, ends: boolean): void;
  reset(stream: number): void;
  goAway(): void;
  mayWrite(): void;
}

/** One side of a connection: frames in, frames out; what is written in one turn leaves together. */
class FrameSocket {
  readonly #socket: Socket;
  readonly #handlers: FrameHandlers;
  #rest: Buffer = Buffer.alloc(0);
  #unsent: Buffer[] = [];
  /** How many bytes of data the other side still takes, on all streams together. */
  windowBytes = firstWindowBytes;

  constructor(socket: Socket, prefaceBytes: number, handlers: FrameHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    let skippedBytes = prefaceBytes;
    socket.setNoDelay(true);
    socket.on('data', (bytes) => {
      const skip = Math.min(skippedBytes, bytes.length);
      skippedBytes -= skip;
      this.#take(skip === 0 ? bytes : bytes.subarray(skip));
    });
  }

  write(...frames: readonly Buffer[]): void {
    if (this.#unsent.length === 0) queueMicrotask(() => this.#flush());
    this.#unsent.push(...frames);
  }

  #flush(): void {
    const frames = this.#unsent;
    this.#unsent = [];
    if (this.#socket.writable) this.#socket.write(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
  }

  #take(arrived: Buffer): void {
    const bytes = this.#rest.length === 0 ? arrived : Buffer.concat([this.#rest, arrived]);
    let at = 0;
    while (at + frameHeadBytes <= bytes.length) {
      const end = at + frameHeadBytes + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      const payload = bytes.subarray(at + frameHeadBytes, end);
      this.#frame(bytes[at + 3]!, bytes[at + 4]!, bytes.readUInt32BE(at + 5) & 0x7f_ff_ff_ff, payload);
      at = end;
    }
    this.#rest = bytes.subarray(at);
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    const isAcknowledgement = (flags & acknowledged) !== 0;
    const ends = (flags & endStream) !== 0;
    switch (type) {
      case frameTypes.data:
        this.#handlers.data(stream, payload, ends);
        return;
      case frameTypes.headers:
        this.#handlers.headers(stream, ends);
        return;
      case frameTypes.reset:
        this.#handlers.reset(stream);
        return;
      case frameTypes.settings:
        if (!isAcknowledgement) this.write(settingsHeard);
        return;
      case frameTypes.ping:
        if (!isAcknowledgement) this.write(frame(frameTypes.ping, acknowledged, 0, payload));
        return;
      case frameTypes.goAway:
        this.#handlers.goAway();
        return;
      case frameTypes.windowUpdate:
        if (stream === 0) this.windowBytes += payload.readUInt32BE(0);
        this.#handlers.mayWrite();
        return;
    }
  }
}

interface PutUnderWay {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  hasMessage: boolean;
}

/** A connection to host:port. */
export class PutClient {
  readonly #socket: Socket;
  readonly #frames: FrameSocket;
  readonly #underWay = new Map<number, PutUnderWay>();
  #waiting: { readonly stream: number; readonly body: Buffer }[] = [];
  #lastStream = -1;
  #isLost = false;

  constructor(address: string) {
    const { hostname, port } = new URL(`http://${address}`);
    this.#socket = connect({ host: hostname, port: Number(port) });
    this.#frames = new FrameSocket(this.#socket, 0, {
      headers: (stream, ends) => {
        if (ends) this.#ended(stream, true);
      },
      data: (stream, bytes, ends) => {
        const put = this.#underWay.get(stream);
        if (put !== undefined && bytes.length >= messageHeadBytes) put.hasMessage = true;
        if (ends) this.#ended(stream, true);
      },
      reset: (stream) => this.#ended(stream, false),
      goAway: () => this.#socket.destroy(),
      mayWrite: () => this.#sendWaiting(),
    });
    this.#frames.write(preface, greeting);
    // Every put under way fails when the connection has closed.
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      this.#isLost = true;
      for (const stream of [...this.#underWay.keys()]) this.#ended(stream, false);
    });
  }

  /** Resolves when the put is acknowledged; rejects when it is refused, or the connection is lost. */
  put(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#isLost) {
        reject(new Error('the connection is lost'));
        return;
      }
      this.#lastStream += 2;
      const stream = this.#lastStream;
      this.#underWay.set(stream, { resolve, reject, hasMessage: false });
      const body = Buffer.allocUnsafe(messageHeadBytes + request.length);
      // A message as gRPC frames it: not compressed, its length, its bytes.
      body[0] = 0;
      body.writeUInt32BE(request.length, 1);
      body.set(request, messageHeadBytes);
      this.#waiting.push({ stream, body });
      this.#sendWaiting();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #sendWaiting(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const { stream, body } = next;
      if (body.length > this.#frames.windowBytes) return;
      this.#frames.windowBytes -= body.length;
      this.#waiting.shift();
      const headers = frame(frameTypes.headers, endHeaders, stream, requestHeaders);
      this.#frames.write(headers, frame(frameTypes.data, endStream, stream, body));
    }
  }

  #ended(stream: number, isWhole: boolean): void {
    const put = this.#underWay.get(stream);
    if (put === undefined) return;
    this.#underWay.delete(stream);
    if (isWhole && put.hasMessage) put.resolve();
    else put.reject(new Error('the put was not acknowledged'));
  }
}

/** Serves Put to PutClients on a free port of 127.0.0.1; whatever they call is a put. The answer is its address. */
export function servePuts(put: (request: Buffer) => Promise<unknown>): Promise<string> {
  const server = createServer((socket) => {
    const bodies = new Map<number, Buffer>();
    const frames = new FrameSocket(socket, preface.length, {
      headers: () => {},
      data: (stream, bytes, ends) => {
        const known = bodies.get(stream);
        const body = known === undefined ? bytes : Buffer.concat([known, bytes]);
        if (!ends) {
          bodies.set(stream, body);
          return;
        }
        bodies.delete(stream);
        put(body.subarray(messageHeadBytes)).then(
          () => frames.write(...acknowledgement(stream)),
          () => frames.write(frame(frameTypes.headers, endHeaders | endStream, stream, refusalHeaders)),
        );
      },
      reset: (stream) => bodies.delete(stream),
      goAway: () => socket.destroy(),
      mayWrite: () => {},
    });
    socket.on('error', () => socket.destroy());
    frames.write(greeting);
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${(server.address() as AddressInfo).port}`));
  });
}

function acknowledgement(stream: number): Buffer[] {
  return [
    frame(frameTypes.headers, endHeaders, stream, responseHeaders),
    frame(frameTypes.data, 0, stream, emptyMessage),
    frame(frameTypes.headers, endHeaders | endStream, stream, okTrailers),
  ];
}
