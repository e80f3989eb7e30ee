/**
 * What travels in one frame of the stream between two managers: messages, questions to the leader, or its
 * answers, as many as there are at once. (A unary call for each question would cost more than the put
 * itself.) Pure.
 */
import { pack, unpack } from 'msgpackr';
import { type ErrorCode, errorTable, isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Message } from './core/types.ts';
import { malformed, messagesOf } from './message-codec.ts';

export type QuestionKind = 'propose' | 'read-index';

export interface Question {
  /** The asker's number for it, unique on its stream. */
  readonly id: number;
  readonly kind: QuestionKind;
  readonly data: Uint8Array;
}

export type Answer =
  | { readonly id: number; readonly index: number; readonly result: unknown }
  | { readonly id: number; readonly error: ShoalError };

export type Frame =
  | { readonly kind: 'messages'; readonly messages: readonly Message[] }
  | { readonly kind: 'questions'; readonly questions: readonly Question[] }
  /** The last one: why the accepting side hangs up. */
  | { readonly kind: 'refusal'; readonly error: ShoalError }
  | { readonly kind: 'answers'; readonly answers: readonly Answer[] };

const questionsMark = 'questions';
const answersMark = 'answers';
const refusalMark = 'refusal';

/** Frames stay well below what the port accepts; only a single large proposal makes a larger one. */
const frameBytes = 4 * 2 ** 20;

/** `items` in groups, in order, each of at most a frame's size in all, or of one item. */
export function* groupsThatFit<T>(items: readonly T[], sizeOf: (item: T) => number): Generator<readonly T[]> {
  let start = 0;
  let sizeBytes = 0;
  for (const [position, item] of items.entries()) {
    const itemBytes = sizeOf(item);
    if (position > start && sizeBytes + itemBytes > frameBytes) {
      yield items.slice(start, position);
      start = position;
      sizeBytes = 0;
    }
    sizeBytes += itemBytes;
  }
  if (start < items.length) yield start === 0 ? items : items.slice(start);
}

/** About as many bytes as the message takes on the wire, its snapshot aside. */
export function sizeOfMessage(message: Message): number {
  let sizeBytes = 64;
  for (const { data } of message.entries ?? []) sizeBytes += 24 + data.length;
  return sizeBytes;
}

export function encodeQuestions(questions: readonly Question[]): Buffer {
  return pack([questionsMark, ...questions.map(({ id, kind, data }) => [id, kind, data])]);
}

export function encodeAnswers(answers: readonly Answer[]): Buffer {
  return pack([
    answersMark,
    ...answers.map((answer) => {
      if (!('error' in answer)) return [answer.id, answer.index, answer.result];
      const { code, message, details } = answer.error;
      return [answer.id, code, message, details];
    }),
  ]);
}

export function encodeRefusal(error: unknown): Buffer {
  const { code, message, details } = answerError(error);
  return pack([refusalMark, [0, code, message, details]]);
}

/** Throws ShoalError 'invalid-argument' on what is no frame. */
export function decodeFrame(bytes: Uint8Array): Frame {
  let list: unknown;
  try {
    list = unpack(bytes);
  } catch (error) {
    throw malformed(error);
  }
  if (!Array.isArray(list)) throw malformed();
  if (list[0] === questionsMark) return { kind: 'questions', questions: list.slice(1).map(questionOf) };
  if (list[0] === answersMark) return { kind: 'answers', answers: list.slice(1).map(answerOf) };
  if (list[0] === refusalMark) {
    const refusal = answerOf(list[1]);
    if (!('error' in refusal)) throw malformed();
    return { kind: 'refusal', error: refusal.error };
  }
  return { kind: 'messages', messages: messagesOf(list) };
}

/** Any error as one that can be told to another manager. */
export function answerError(error: unknown): ShoalError {
  return isShoalError(error) ? error : new ShoalError('internal', messageOf(error));
}

function questionOf(wire: unknown): Question {
  if (!Array.isArray(wire)) throw malformed();
  const [id, kind, data] = wire as unknown[];
  const isKnown = kind === 'propose' || kind === 'read-index';
  if (typeof id !== 'number' || !isKnown || !(data instanceof Uint8Array)) throw malformed();
  return { id, kind, data };
}

function answerOf(wire: unknown): Answer {
  if (!Array.isArray(wire)) throw malformed();
  const [id, head, rest, details] = wire as unknown[];
  if (typeof id !== 'number') throw malformed();
  if (typeof head === 'number') return { id, index: head, result: rest };
  if (typeof head !== 'string' || !(head in errorTable)) throw malformed();
  const facts = Object.fromEntries(
    Object.entries(details ?? {}).map(([name, value]) => [name, String(value)]),
  );
  return { id, error: new ShoalError(head as ErrorCode, String(rest), { details: facts }) };
}
