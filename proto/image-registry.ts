/** Docker Hub, as `docker login` calls it. */
export const dockerHub = 'https://index.docker.io/v1/';

/** The registry of an image's name: its first part when that looks like a host, else Docker Hub. */
export function registryOf(image: string): string {
  const [first, ...rest] = image.split('/');
  const isHost = rest.length > 0 && (/[.:]/.test(first!) || first === 'localhost');
  return isHost ? first! : dockerHub;
}
