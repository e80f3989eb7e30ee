// Generates proto/generated from proto/*.proto with proto-loader's own generator. Skipped when every
// output is newer than every input, so that a build without a changed .proto costs nothing.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'proto');
const target = join(source, 'generated');
const stamp = join(target, '.stamp');
const inputs = readdirSync(source)
  .filter((name) => name.endsWith('.proto'))
  .map((name) => join(source, name));
const newest = Math.max(
  0,
  ...[...inputs, fileURLToPath(import.meta.url)].map((path) => statSync(path).mtimeMs),
);

if (!existsSync(stamp) || statSync(stamp).mtimeMs < newest) {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  if (inputs.length > 0) {
    execFileSync(
      process.execPath,
      [
        join(root, 'node_modules/@grpc/proto-loader/build/bin/proto-loader-gen-types.js'),
        `-I=${source}`,
        '--keepCase',
        '--longs=String',
        '--enums=String',
        '--oneofs',
        '--targetFileExtension=.ts',
        '--importFileExtension=.ts',
        '--grpcLib=@grpc/grpc-js',
        `--outDir=${target}`,
        ...inputs,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    tidy(target);
  }
  writeFileSync(stamp, '');
}

// Under exactOptionalPropertyTypes a message could not be written as { field: maybe }: an absent field and an
// undefined one are the same on the wire, so the types say so. Paths of the building machine are dropped.
function tidy(folder) {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
    const path = join(entry.parentPath, entry.name);
    const text = readFileSync(path, 'utf8')
      .replace(/^\/\/ Original file: .*$/gm, '')
      .replace(/^( {2}'[^']+'\?: .*);$/gm, '$1 | undefined;');
    writeFileSync(path, text);
  }
}
