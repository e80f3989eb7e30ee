/** Asks the user for a secret: not shown on a terminal, one line of standard input elsewhere. */
import { text } from 'node:stream/consumers';
import { ShoalError } from '../proto/errors.ts';

const endOfInput = '\x04';
const interrupt = '\x03';

/** The secret. Throws with `missing` when there is none, or when the user breaks off. */
export async function askSecret(prompt: string, missing: string): Promise<string> {
  const { stdin } = process;
  const answer = stdin.isTTY ? await askUnseen(prompt) : (await text(stdin)).split('\n')[0]!;
  if (answer.trim() === '') throw new ShoalError('invalid-argument', missing);
  return answer.trim();
}

/** Reads keys in raw mode, in which the terminal shows nothing. */
function askUnseen(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  // Before the prompt, which a program that types waits for.
  stdin.setRawMode(true);
  stderr.write(prompt);
  stdin.setEncoding('utf8');
  stdin.resume();
  return new Promise((resolve) => {
    let typed = '';
    const end = (answer: string): void => {
      stdin.setRawMode(false);
      stdin.pause();
      stdin.removeListener('data', onKeys);
      stderr.write('\n');
      resolve(answer);
    };
    const onKeys = (keys: string): void => {
      for (const key of keys) {
        if (key === '\r' || key === '\n' || key === endOfInput || key === interrupt) {
          end(key === interrupt ? '' : typed);
          return;
        }
        typed = key === '\x7f' || key === '\b' ? typed.slice(0, -1) : typed + key;
      }
    };
    stdin.on('data', onKeys);
  });
}
