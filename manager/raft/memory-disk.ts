/** A disk in memory, for a member that is only rehearsed: nothing of it outlives the process. */
import type { AppendFile, Disk } from './contract.ts';

export class MemoryDisk implements Disk {
  private readonly files = new Map<string, Buffer[]>();

  async list(): Promise<readonly string[]> {
    return [...this.files.keys()].sort();
  }

  async read(name: string): Promise<Uint8Array> {
    const parts = this.files.get(name);
    if (!parts) throw new Error(`there is no file ${name}`);
    return Buffer.concat(parts);
  }

  async create(name: string): Promise<AppendFile> {
    this.files.set(name, []);
    return this.appendTo(name);
  }

  async reopen(name: string, keepBytes: number): Promise<AppendFile> {
    const kept = (await this.read(name)).subarray(0, keepBytes);
    this.files.set(name, [Buffer.from(kept)]);
    return this.appendTo(name);
  }

  async replace(name: string, data: Uint8Array | readonly Uint8Array[]): Promise<void> {
    const pieces = data instanceof Uint8Array ? [data] : data;
    this.files.set(name, [Buffer.concat(pieces)]);
  }

  async remove(name: string): Promise<void> {
    this.files.delete(name);
  }

  private appendTo(name: string): AppendFile {
    return {
      append: async (data) => {
        this.files.get(name)?.push(Buffer.from(data));
      },
      close: async () => {},
    };
  }
}
