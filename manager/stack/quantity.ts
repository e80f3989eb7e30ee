/** The small languages of compose values: durations, sizes, processors, command lines. */

/** A value that can't be read; the message says why and is meant for people. */
export class BadValue extends Error {}

const nanosecondsPer: Record<string, number> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds of a duration such as `1m30s` or `1.5h`. Throws BadValue. */
export function parseDuration(text: string): number {
  if (text === '0') return 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== text) {
    throw new BadValue(
      `invalid duration ${JSON.stringify(text)}: write a number with a unit, such as 10s or 1m30s`,
    );
  }
  const total = parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * nanosecondsPer[unit!]!, 0);
  return Math.round(total);
}

const sizeUnits = 'bkmgtp';

/** Bytes of a size such as `50M`, `1.5gb` or `1024`; units are powers of 1024, as Docker takes them. Throws BadValue. */
export function parseBytes(text: string): number {
  const [, amount, unit] = /^(\d+(?:\.\d+)?) ?([bkmgtp])?(?:i?b)?$/i.exec(text.trim()) ?? [];
  if (amount === undefined) {
    throw new BadValue(
      `invalid size ${JSON.stringify(text)}: write a number with a unit, such as 512M or 1G`,
    );
  }
  const power = unit === undefined ? 0 : sizeUnits.indexOf(unit.toLowerCase());
  return Math.floor(Number(amount) * 1024 ** power);
}

/** 10⁻⁹ processors of a number such as `0.5`. Throws BadValue. */
export function parseCpus(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text.trim())) {
    throw new BadValue(`invalid number of CPUs ${JSON.stringify(text)}: write a number such as "0.5" or "2"`);
  }
  const decimals = /\.(\d+)/.exec(text)?.[1] ?? '';
  if (decimals.replace(/0+$/, '').length > 9)
    throw new BadValue(`${JSON.stringify(text)} CPUs is too precise`);
  return Math.round(Number(text) * 1e9);
}

/** The words of a command line: quotes and backslashes as a shell reads them, nothing expanded. Throws BadValue. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: '"' | "'" | undefined;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at]!;
    if (quote === "'") {
      if (char === "'") quote = undefined;
      else word += char;
    } else if (char === '\\' && (quote === undefined || '"\\$`\n'.includes(text[at + 1] ?? ''))) {
      if (at + 1 >= text.length)
        throw new BadValue(`the command ends with a backslash: ${JSON.stringify(text)}`);
      at += 1;
      word = (word ?? '') + text[at];
    } else if (quote === '"') {
      if (char === '"') quote = undefined;
      else word += char;
    } else if (char === '"' || char === "'") {
      quote = char;
      word ??= '';
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + char;
  }
  if (quote !== undefined) throw new BadValue(`the command has an open ${quote}: ${JSON.stringify(text)}`);
  if (word !== undefined) words.push(word);
  return words;
}
