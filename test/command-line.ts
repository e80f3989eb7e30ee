/** The command lines of the project's own tools: what they are given, or how they are used. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/**
 * What the tool was called with. Prints `usage` and ends the process when that is asked for (exit code 0) or when an
 * option is not one of `options` (2, with what is wrong).
 */
export function commandLine<T extends ParseArgsConfig>(
  usage: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  if (process.argv.slice(2).some((word) => word === '--help' || word === '-h')) {
    console.log(usage);
    process.exit(0);
  }
  try {
    return parseArgs(config);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    console.error(usage);
    process.exit(2);
  }
}

/** The number above 0 that stands after `--flag`. Ends the process with exit code 2 when it is none. */
export function numberAbove0(flag: string, text: string): number {
  const number = Number(text);
  if (Number.isFinite(number) && number > 0) return number;
  console.error(`--${flag} takes a number above 0, not ${text}`);
  process.exit(2);
}

/** The same for what can only be counted in whole ones. */
export function countAbove0(flag: string, text: string): number {
  const number = numberAbove0(flag, text);
  if (Number.isSafeInteger(number)) return number;
  console.error(`--${flag} takes a whole number, not ${text}`);
  process.exit(2);
}
