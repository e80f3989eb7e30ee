/** Listeners for a member's status, told once about each change of leader, role, term or members. */
import type { RaftStatus } from './contract.ts';

export class StatusBoard {
  readonly #listeners = new Set<(status: RaftStatus) => void>();
  #shown = '';

  /** Returns how to stop it. */
  add(listener: (status: RaftStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Something may have changed; commit indexes and activity alone are no news. */
  show(statusNow: () => RaftStatus): void {
    if (this.#listeners.size === 0) return;
    const status = statusNow();
    const { role, term, leader } = status;
    const members = status.members.map(({ isActive, ...member }) => member);
    const shown = JSON.stringify([role, term, leader, members]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    for (const listener of [...this.#listeners]) listener(status);
  }
}
