/**
 * etcd's Put over gRPC, the little of it that a load needs: one client for both sides, so that its cost is the
 * same in each. Keys and values are bytes; answers are not looked into.
 */
import * as grpc from '@grpc/grpc-js';

const path = '/etcdserverpb.KV/Put';
const raw = (bytes: Buffer): Buffer => bytes;

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

/** A connection to host:port. */
export class PutClient {
  private readonly client: grpc.Client;

  constructor(address: string) {
    this.client = new grpc.Client(address, grpc.credentials.createInsecure());
  }

  /** Resolves when the put is acknowledged. */
  put(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(path, raw, raw, request, (error) => (error ? reject(error) : resolve()));
    });
  }

  close(): void {
    this.client.close();
  }
}

/** Serves Put on a free port of 127.0.0.1; the answer is its address. */
export function servePuts(put: (request: Buffer) => Promise<unknown>): Promise<string> {
  const server = new grpc.Server();
  const types = { requestSerialize: raw, requestDeserialize: raw };
  const answers = { responseSerialize: raw, responseDeserialize: raw };
  const Put = { path, requestStream: false, responseStream: false, ...types, ...answers } as const;
  const handle: grpc.handleUnaryCall<Buffer, Buffer> = (call, done) => {
    put(call.request).then(
      () => done(null, Buffer.alloc(0)),
      (error: unknown) => done(error as Error),
    );
  };
  server.addService({ Put }, { Put: handle });
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(`127.0.0.1:${port}`),
    );
  });
}
