/**
 * JSON as clients send it: read with a message that names the place of a fault, in the words of the
 * Docker Engine (which are those of its JSON reader).
 */
import { ShoalError } from '../../proto/errors.ts';

/** Deeper nesting than any object of the API has; refused before anything walks it. */
const maximumDepth = 64;

/** The value of `text`. Throws ShoalError 'invalid-argument' that says what is wrong and where. */
export function parseJson(text: string): unknown {
  const tooDeep = depthOf(text) > maximumDepth;
  if (tooDeep) throw invalid(`nested deeper than ${maximumDepth} levels`);
  try {
    return JSON.parse(text);
  } catch {
    const fault = new Reader(text).fault();
    throw invalid(fault ? fault.message : 'malformed', fault ? placeOf(text, fault.offset) : '');
  }
}

/** What is wrong with `text` as JSON, in Docker's words and without the place; undefined when nothing is. */
export function jsonFault(text: string): string | undefined {
  if (depthOf(text) > maximumDepth) return 'exceeded max depth';
  return new Reader(text).fault()?.message;
}

function invalid(message: string, place = ''): ShoalError {
  return new ShoalError('invalid-argument', `invalid JSON: ${message}${place}`);
}

function placeOf(text: string, offset: number): string {
  const before = text.slice(0, offset);
  const line = before.split('\n').length;
  const column = offset - before.lastIndexOf('\n');
  return ` (line ${line}, column ${column})`;
}

/** How deep the brackets of `text` go, those within strings left out. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (inString) {
      if (character === '\\') at++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === '[' || character === '{') deepest = Math.max(deepest, ++depth);
    else if (character === ']' || character === '}') depth--;
  }
  return deepest;
}

interface Fault {
  readonly offset: number;
  readonly message: string;
}

class SyntaxFault extends Error {
  readonly fault: Fault;

  constructor(fault: Fault) {
    super(fault.message);
    this.fault = fault;
  }
}

/** Finds the first fault of a text; it builds nothing. */
class Reader {
  private readonly text: string;
  private at = 0;

  constructor(text: string) {
    this.text = text;
  }

  fault(): Fault | undefined {
    try {
      this.value();
      this.space();
      if (this.at < this.text.length) this.fail('after top-level value');
      return undefined;
    } catch (error) {
      if (error instanceof SyntaxFault) return error.fault;
      throw error;
    }
  }

  private fail(context: string): never {
    const character = this.text[this.at];
    const message =
      character === undefined
        ? 'unexpected end of JSON input'
        : `invalid character ${quote(character)} ${context}`;
    throw new SyntaxFault({ offset: this.at, message });
  }

  private space(): void {
    while (/[ \t\r\n]/.test(this.text[this.at] ?? '')) this.at++;
  }

  private value(): void {
    this.space();
    const character = this.text[this.at] ?? '';
    if (character === '{') this.object();
    else if (character === '[') this.array();
    else if (character === '"') this.string();
    else if (character === 't') this.literal('true');
    else if (character === 'f') this.literal('false');
    else if (character === 'n') this.literal('null');
    else if (character === '-' || /\d/.test(character)) this.number();
    else this.fail('looking for beginning of value');
  }

  private literal(word: string): void {
    for (const [index, expected] of [...word].entries()) {
      if (index > 0 && this.text[this.at] !== expected) {
        this.fail(`in literal ${word} (expecting ${quote(expected)})`);
      }
      this.at++;
    }
  }

  private number(): void {
    if (this.text[this.at] === '-') {
      this.at++;
      if (!/\d/.test(this.text[this.at] ?? '')) this.fail('in numeric literal');
    }
    if (this.text[this.at] === '0') this.at++;
    else this.digits();
    if (this.text[this.at] === '.') {
      this.at++;
      if (!/\d/.test(this.text[this.at] ?? '')) this.fail('after decimal point in numeric literal');
      this.digits();
    }
    if (/[eE]/.test(this.text[this.at] ?? '')) {
      this.at++;
      if (/[+-]/.test(this.text[this.at] ?? '')) this.at++;
      if (!/\d/.test(this.text[this.at] ?? '')) this.fail('in exponent of numeric literal');
      this.digits();
    }
  }

  private digits(): void {
    while (/\d/.test(this.text[this.at] ?? '')) this.at++;
  }

  private string(): void {
    this.at++;
    for (;;) {
      const character = this.text[this.at];
      if (character === undefined || character < ' ') this.fail('in string literal');
      this.at++;
      if (character === '"') return;
      if (character !== '\\') continue;
      const escaped = this.text[this.at] ?? '';
      if (!/["\\/bfnrtu]/.test(escaped)) this.fail('in string escape code');
      this.at++;
      if (escaped !== 'u') continue;
      for (let count = 0; count < 4; count++, this.at++) {
        if (!/[0-9a-fA-F]/.test(this.text[this.at] ?? '')) this.fail('in \\u hexadecimal character escape');
      }
    }
  }

  private array(): void {
    this.at++;
    this.space();
    if (this.text[this.at] === ']') {
      this.at++;
      return;
    }
    for (;;) {
      this.value();
      this.space();
      const character = this.text[this.at];
      if (character !== ',' && character !== ']') this.fail('after array element');
      this.at++;
      if (character === ']') return;
    }
  }

  private object(): void {
    this.at++;
    this.space();
    if (this.text[this.at] === '}') {
      this.at++;
      return;
    }
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') this.fail('looking for beginning of object key string');
      this.string();
      this.space();
      if (this.text[this.at] !== ':') this.fail('after object key');
      this.at++;
      this.value();
      this.space();
      const character = this.text[this.at];
      if (character !== ',' && character !== '}') this.fail('after object key:value pair');
      this.at++;
      if (character === '}') return;
    }
  }
}

function quote(character: string): string {
  return character === "'" ? `'\\''` : `'${character}'`;
}
