/**
 * Wrong usage: what is told with exit status 2. Also flags that docker has and Shoal has not yet, which are
 * refused by name, and switches that are given a value (`--force=false`), as docker takes them.
 */
import { type Command, Option } from 'commander';
import { ShoalError } from '../proto/errors.ts';

/** The command was not typed as it has to be. The message says which part and what would be right. */
export class UsageError extends ShoalError {
  constructor(message: string) {
    super('invalid-argument', message);
    this.name = 'UsageError';
  }
}

/**
 * Refuses flags that docker's command has and this one not. `flags` are as commander writes them; `reason`
 * follows the flag's name in the message.
 */
export function refuseFlags(
  command: Command,
  flags: readonly string[],
  reason = 'is not supported yet',
): Command {
  for (const flag of flags) {
    const option = new Option(flag).hideHelp();
    command.addOption(option);
    command.on(`option:${option.name()}`, () => {
      throw new UsageError(`${option.long ?? option.flags} ${reason}`);
    });
  }
  return command;
}

const yes = ['1', 't', 'T', 'TRUE', 'true', 'True'];
const no = ['0', 'f', 'F', 'FALSE', 'false', 'False'];

/**
 * The words of a command line with `--switch=true` as `--switch`, and `--switch=false` taken out and noted
 * on its command as an explicit false. Throws UsageError for any other value of a switch.
 */
export function takeSwitchValues(program: Command, words: readonly string[]): string[] {
  const kept: string[] = [];
  let command = program;
  let skipsNext = false;
  for (const [index, word] of words.entries()) {
    if (word === '--') return [...kept, ...words.slice(index)];
    if (skipsNext || !word.startsWith('-')) {
      if (!skipsNext) {
        const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
        // From the first argument on, words may be those of a container.
        if (!next && takesContainerWords(command)) return [...kept, ...words.slice(index)];
        command = next ?? command;
      }
      skipsNext = false;
      kept.push(word);
      continue;
    }
    const [flag, value] = splitFlag(word);
    const option = command.options.find((one) => one.long === flag || one.short === flag);
    skipsNext = value === undefined && option?.required === true;
    if (value === undefined || !option || option.required || option.optional) kept.push(word);
    else if (yes.includes(value)) kept.push(flag);
    else if (no.includes(value)) command.setOptionValue(option.attributeName(), option.negate);
    else throw new UsageError(`invalid argument "${value}" for "${flag}": it is true or false`);
  }
  return kept;
}

/** Whether the words after the command's first argument are a container's. */
function takesContainerWords(command: Command): boolean {
  const path = `${command.parent?.name()} ${command.name()}`;
  return path === 'service create' || path === 'task exec';
}

function splitFlag(word: string): [string, string | undefined] {
  const at = word.indexOf('=');
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}
