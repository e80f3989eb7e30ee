/**
 * What a reader of logs has had so far, so that it can go on through another leader, and what of a node, so that this
 * can go on when it is back: pure. Lines of one task's
 * stream come in the order of their times; lines of different tasks do not.
 */
import type { LogEntry } from './reader.ts';

/** What is looked at of a line. */
type LineMark = Pick<LogEntry, 'taskId' | 'stream' | 'timestamp'>;

interface Mark {
  /** Time of the last line, RFC 3339 to the nanosecond: compared as text. */
  readonly last: string;
  /** Lines of that very time. */
  readonly count: number;
}

/** A subscription's lines come from nodes with clocks of their own, and a lost leader is noticed late. */
export const resumeMarginMs = 60_000;
/** Quiet for so long, or at it for so long: a follower has the lines of the past behind it. */
const quietMs = 3_000;
const longMs = 60_000;

export class LogProgress {
  private readonly marks = new Map<string, Mark>();
  /** What was had when the present subscription began, for streams that have not got beyond it again. */
  private had = new Map<string, { last: string; left: number }>();
  private readonly startedMs: number;
  private idleSinceMs: number | undefined;
  private caughtUpMs: number | undefined;
  private isPastThePast = false;
  private readonly startedText: string;
  private isResumed = false;

  constructor(nowMs: number) {
    this.startedMs = nowMs;
    this.startedText = new Date(nowMs).toISOString();
  }

  /** Everything that was sent has been taken, as of now. */
  onIdle(nowMs: number): void {
    this.caughtUpMs = nowMs;
    this.idleSinceMs ??= nowMs;
    if (nowMs - this.idleSinceMs >= quietMs || nowMs - this.startedMs >= longMs) this.isPastThePast = true;
  }

  /**
   * Whether the reader has not had `line` yet. `skipsPast`: of streams that it has had nothing of, lines from before
   * it began are none of its business (it asked for the last lines only).
   */
  take(line: LineMark, skipsPast: boolean): boolean {
    this.idleSinceMs = undefined;
    const key = `${line.taskId}/${line.stream}`;
    const had = this.had.get(key);
    if (had) {
      if (line.timestamp < had.last) return false;
      if (line.timestamp === had.last && had.left > 0) {
        had.left--;
        return false;
      }
      if (line.timestamp > had.last) this.had.delete(key);
    } else if (skipsPast && this.isResumed && !this.marks.has(key) && line.timestamp < this.startedText) {
      return false;
    }
    const mark = this.marks.get(key);
    const count = mark?.last === line.timestamp ? mark.count + 1 : 1;
    this.marks.set(key, { last: line.timestamp, count });
    return true;
  }

  /**
   * The subscription broke off and is made anew. Answers from when on (ms since the epoch), or undefined when
   * that can't be told and all has to be asked for again.
   */
  resume(): number | undefined {
    this.isResumed = true;
    this.idleSinceMs = undefined;
    this.had = new Map([...this.marks].map(([key, { last, count }]) => [key, { last, left: count }]));
    if (!this.isPastThePast || this.caughtUpMs === undefined) return undefined;
    return this.caughtUpMs - resumeMarginMs;
  }
}
