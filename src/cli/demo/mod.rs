pub struct Options {
    pub json: bool,
}
pub async fn run(_: Options) -> anyhow::Result<bool> {
    anyhow::bail!("not yet")
}
pub async fn server(_: u16) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
