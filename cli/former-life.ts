/**
 * What an earlier life of this daemon left on the engine. A data directory that is removed by hand (the way out
 * of a damaged log) takes the node's identity with it; its containers would run on for ever beside those that
 * took their place. The folder for secrets outlives it, so the node's id is noted there.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeIdLabel } from '../agent/engine/container-spec.ts';
import type { Engine } from '../agent/engine/engine.ts';
import { messageOf } from '../proto/errors.ts';
import type { Log } from '../proto/ports.ts';

const noteName = 'node-id';

/**
 * Removes the containers of the node that this daemon was before, if it was another one than `nodeId`, and notes
 * `nodeId`. Never rejects: should the engine not answer, the next start tries again.
 */
export async function endFormerLife(engine: Engine, runDir: string, nodeId: string, log: Log): Promise<void> {
  const path = join(runDir, noteName);
  try {
    const former = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
    if (former === nodeId) return;
    const left = former === '' ? [] : await engine.list({ [nodeIdLabel]: former });
    for (const { id } of left) {
      log.info({ container: id, node: former }, 'removing a container of the node that this one was before');
      await engine.remove(id);
    }
    mkdirSync(runDir, { recursive: true, mode: 0o700 });
    writeFileSync(path, nodeId, { mode: 0o600 });
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'what this node’s former life left could not be cleared away');
  }
}

/** A node that leaves in order leaves nothing to a later life; its folder goes once it is empty. */
export function forgetLife(runDir: string): void {
  if (!existsSync(runDir)) return;
  rmSync(join(runDir, noteName), { force: true });
  if (readdirSync(runDir).length === 0) rmdirSync(runDir);
}
