/**
 * Turns "something changed" into messages without ever queueing any: changes that come while a message is on its
 * way are gathered into the next.
 */
export class Pump {
  private readonly step: () => Promise<void> | undefined;
  private readonly onError: (error: unknown) => void;
  private state: 'idle' | 'running' | 'again' | 'stopped' = 'idle';

  /** `step` sends what there is to send; undefined when that is nothing. */
  constructor(step: () => Promise<void> | undefined, onError: (error: unknown) => void) {
    this.step = step;
    this.onError = onError;
  }

  /** Something changed: a step follows, now or after the one under way. */
  wake(): void {
    if (this.state === 'running') this.state = 'again';
    else if (this.state === 'idle') void this.run();
  }

  stop(): void {
    this.state = 'stopped';
  }

  private async run(): Promise<void> {
    try {
      do {
        this.state = 'running';
        await this.step();
      } while (this.isWoken());
      if (this.state === 'running') this.state = 'idle';
    } catch (error) {
      this.state = 'stopped';
      this.onError(error);
    }
  }

  private isWoken(): boolean {
    return this.state === 'again';
  }
}
