/**
 * etcd's Put over gRPC, the little of it that a load needs, by hand over HTTP/2: one lean client for both sides, so
 * that its cost is small and the same in each. Keys and values are bytes; of answers the status alone is looked at.
 */
import * as http2 from 'node:http2';
import type { AddressInfo } from 'node:net';

const path = '/etcdserverpb.KV/Put';
const headBytes = 5;

/** A message as gRPC frames it: not compressed, its length, its bytes. */
function framed(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(headBytes + message.length);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, headBytes);
  return bytes;
}

const emptyAnswer = framed(Buffer.alloc(0));

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

const putHeaders = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };

/** A connection to host:port. */
export class PutClient {
  private readonly session: http2.ClientHttp2Session;

  constructor(address: string) {
    this.session = http2.connect(`http://${address}`);
    // Every put under way fails by itself.
    this.session.on('error', () => {});
  }

  /** Resolves when the put is acknowledged; rejects when it is refused, or the connection is lost. */
  put(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const stream = this.session.request(putHeaders);
      let status: string | undefined;
      const heard = (headers: http2.IncomingHttpHeaders): void => {
        if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status']);
      };
      // A refusal has its status in the first headers.
      stream.on('response', heard);
      stream.on('trailers', heard);
      stream.on('error', reject);
      stream.on('close', () => {
        if (status === '0') resolve();
        else reject(new Error(`the put was not acknowledged: status ${status}`));
      });
      stream.resume();
      stream.end(framed(request));
    });
  }

  close(): void {
    this.session.destroy();
  }
}

/** Serves Put on a free port of 127.0.0.1; the answer is its address. */
export function servePuts(put: (request: Buffer) => Promise<unknown>): Promise<string> {
  const server = http2.createServer();
  server.on('stream', (stream) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      put(body.subarray(headBytes)).then(
        () => answer(stream),
        () => {
          if (stream.closed) return;
          stream.respond(
            { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '14' },
            { endStream: true },
          );
        },
      );
    });
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`127.0.0.1:${(server.address() as AddressInfo).port}`));
  });
}

function answer(stream: http2.ServerHttp2Stream): void {
  if (stream.closed) return;
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(emptyAnswer);
}
