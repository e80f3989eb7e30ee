/** What the audience sees: steps that end with a tick and a time, and a picture that is redrawn in place. */
import colors from 'picocolors';
import { realClock } from '../../cli/runtime.ts';
import type { Timer } from '../../proto/ports.ts';

const redrawMs = 120;
const spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

export class Stage {
  private readonly output: NodeJS.WriteStream;
  private drawn = 0;

  constructor(output: NodeJS.WriteStream) {
    this.output = output;
  }

  /** A headline with a sentence below it. */
  title(text: string, sentence: string): void {
    this.line(`\n${colors.bold(colors.cyan(text))}\n${colors.dim(sentence)}\n`);
  }

  line(text: string): void {
    this.output.write(`${text}\n`);
  }

  fail(text: string): void {
    this.erase();
    this.line(`${colors.red('✖')} ${text}`);
  }

  /**
   * Runs `work` under a line that says what is done, with `picture` below it while it lasts; ends with the
   * time it took and what `work` answered.
   */
  async step(
    what: string,
    work: () => Promise<string | undefined> | Promise<void>,
    picture?: () => string,
  ): Promise<void> {
    const start = realClock.monotonicMs();
    let turn = 0;
    const draw = (): void => {
      const elapsed = ((realClock.monotonicMs() - start) / 1000).toFixed(1);
      const head = `${colors.cyan(spinner[turn++ % spinner.length]!)} ${what} ${colors.dim(`${elapsed} s`)}`;
      const below = picture?.() ?? '';
      this.draw(below === '' ? head : `${head}\n${below}`);
    };
    let timer: Timer | undefined;
    const redraw = (): void => {
      draw();
      timer = realClock.after(redrawMs, redraw);
    };
    if (this.output.isTTY) redraw();
    try {
      const answer = await work();
      timer?.cancel();
      const elapsed = colors.dim(`${((realClock.monotonicMs() - start) / 1000).toFixed(1)} s`);
      this.erase();
      this.line(`${colors.green('✔')} ${what}${answer ? `: ${colors.bold(answer)}` : ''} ${elapsed}`);
      const last = picture?.() ?? '';
      if (last !== '') this.line(last);
    } finally {
      timer?.cancel();
      this.erase();
    }
  }

  private draw(text: string): void {
    this.erase();
    this.output.write(`${text}\n`);
    this.drawn = text.split('\n').length;
  }

  private erase(): void {
    if (this.drawn > 0) this.output.write(`\x1b[${this.drawn}A\x1b[J`);
    this.drawn = 0;
  }
}
