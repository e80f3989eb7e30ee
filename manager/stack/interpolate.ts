/**
 * Variables in compose files: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}`,
 * `${NAME?error}`, `${NAME:+other}`, `${NAME+other}`, `$$`. With a colon an empty value counts as unset.
 * Defaults may hold variables of their own.
 */

/** The text after substitution, or what is wrong with it. */
export type Interpolation =
  | { readonly ok: true; readonly text: string; readonly unset: readonly string[] }
  | { readonly ok: false; readonly message: string };

class Fault extends Error {}

/** Substitutes the variables of `text` by `environment`. `unset` names those that were taken as empty. */
export function interpolate(text: string, environment: Readonly<Record<string, string>>): Interpolation {
  if (!text.includes('$')) return { ok: true, text, unset: [] };
  const reader = new Reader(text, environment);
  try {
    const result = reader.readUntil(undefined);
    return { ok: true, text: result, unset: [...reader.unset] };
  } catch (error) {
    if (error instanceof Fault) return { ok: false, message: error.message };
    throw error;
  }
}

class Reader {
  readonly unset = new Set<string>();
  private readonly text: string;
  private readonly environment: Readonly<Record<string, string>>;
  private at = 0;
  /** More than 0 while reading the part of an expression that is not used. */
  private skipping = 0;

  constructor(text: string, environment: Readonly<Record<string, string>>) {
    this.text = text;
    this.environment = environment;
  }

  /** Reads to the closing brace, which is consumed, or to the end when there is none to come. */
  readUntil(closing: '}' | undefined): string {
    let result = '';
    while (this.at < this.text.length) {
      const char = this.text[this.at]!;
      if (char === closing) {
        this.at += 1;
        return result;
      }
      result += char === '$' ? this.readVariable() : char;
      if (char !== '$') this.at += 1;
    }
    if (closing) throw this.invalid();
    return result;
  }

  private readVariable(): string {
    this.at += 1;
    if (this.text[this.at] === '$') {
      this.at += 1;
      return '$';
    }
    const isBraced = this.text[this.at] === '{';
    if (isBraced) this.at += 1;
    const name = /^[A-Za-z_]\w*/.exec(this.text.slice(this.at))?.[0];
    if (name === undefined) throw this.invalid();
    this.at += name.length;
    return isBraced ? this.readExpression(name) : this.valueOf(name);
  }

  private readExpression(name: string): string {
    if (this.text[this.at] === '}') {
      this.at += 1;
      return this.valueOf(name);
    }
    const operator = /^:?[-?+]/.exec(this.text.slice(this.at))?.[0];
    if (operator === undefined) throw this.invalid();
    this.at += operator.length;
    const value = this.lookup(name);
    const isSet = value !== undefined && (value !== '' || !operator.startsWith(':'));
    const usesWord = operator.endsWith('+') ? isSet : !isSet;
    const word = this.readWord(usesWord);
    switch (operator.at(-1)) {
      case '-':
        return isSet ? value : word;
      case '+':
        return isSet ? word : '';
      default:
        if (isSet || this.skipping > 0) return value ?? '';
        throw new Fault(`required variable ${name} is missing a value${word === '' ? '' : `: ${word}`}`);
    }
  }

  private readWord(isUsed: boolean): string {
    if (!isUsed) this.skipping += 1;
    const word = this.readUntil('}');
    if (!isUsed) this.skipping -= 1;
    return word;
  }

  private valueOf(name: string): string {
    const value = this.lookup(name);
    if (value === undefined && this.skipping === 0) this.unset.add(name);
    return value ?? '';
  }

  private lookup(name: string): string | undefined {
    return Object.hasOwn(this.environment, name) ? this.environment[name] : undefined;
  }

  private invalid(): Fault {
    return new Fault(
      `invalid interpolation format: ${JSON.stringify(this.text)}. You may need to escape any $ with another $`,
    );
  }
}
