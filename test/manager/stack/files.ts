/** Compiling compose files in tests. */
import { type CompiledStack, type ComposeInput, compileCompose } from '../../../manager/stack/compose.ts';

/** What everything of stack `app` is labelled with. */
export const stackLabels = { 'com.docker.stack.namespace': 'app' };

/** Compiles `content` (or several, laid over each other) as stack `app`, from /home/me/app/compose.yml. */
export function compile(
  content: string | readonly string[],
  files: Record<string, string> = {},
  environment: ComposeInput['environment'] = {},
): CompiledStack {
  const contents = typeof content === 'string' ? [content] : content;
  return compileCompose(
    {
      files: contents.map((text, index) => ({
        path: `/home/me/app/${index === 0 ? 'compose' : `over${index}`}.yml`,
        content: text,
      })),
      environment,
      readFile: (path) => files[path],
    },
    'app',
  );
}

/** A file with one service `web` of these lines. */
export function web(...lines: string[]): string {
  return ['services:', '  web:', '    image: nginx', ...lines.map((line) => `    ${line}`)].join('\n');
}

/** The messages of what `run` throws, one a line, without the folder. */
export function complaints(run: () => unknown): string[] {
  try {
    run();
  } catch (error) {
    return (error as Error).message.replaceAll('/home/me/app/', '').split('\n');
  }
  return [];
}
