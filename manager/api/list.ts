/** Long answers: written piece by piece, so that a list of all tasks does not hold up the manager's other work. */
import type { Response } from 'express';

/** As many objects as are turned to text in a few milliseconds. */
const batchSize = 250;

/** Answers `items` as a JSON array. */
export async function answerList(response: Response, items: readonly unknown[]): Promise<void> {
  if (items.length <= batchSize) {
    response.json(items);
    return;
  }
  response.setHeader('Content-Type', 'application/json');
  for (let start = 0; start < items.length && !response.destroyed; start += batchSize) {
    const batch = items.slice(start, start + batchSize);
    const text = batch.map((item) => JSON.stringify(item)).join(',');
    await written(response, `${start === 0 ? '[' : ','}${text}`);
  }
  response.end(']\n');
}

/** Resolves when the text has gone out, or nobody reads any more. */
export function written(response: Response, text: string): Promise<void> {
  return new Promise((resolve) => {
    response.once('close', resolve);
    response.write(text, () => {
      response.off('close', resolve);
      resolve();
    });
  });
}
