// Videos with npm openai: ordered, polled until they are done, fetched and deleted.

/** One function per word that a step's `do` may say; `openai` makes the client for a step. */
export const videos = (openai) => ({
  film: async (step) => {
    const { videos } = openai(step);
    const ordered = await videos.create(step.params);
    let video = ordered;
    const seen = [video.status];
    while (video.status === "queued" || video.status === "in_progress") {
      video = await videos.retrieve(video.id);
      seen.push(video.status);
    }
    if (video.status !== "completed") return { ordered, seen, error: video.error };
    const content = await videos.downloadContent(video.id);
    const bytes = (await content.arrayBuffer()).byteLength;
    const deleted = step.delete ? await videos.delete(video.id) : null;
    return { ordered, seen, type: content.headers.get("content-type"), bytes, deleted };
  },
});
