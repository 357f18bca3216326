//! The S3 server and the faults in front of it are tried before anything relies on them.

use anyhow::{Result, ensure};
use backstay_tests::{
    account,
    fault_proxy::FaultProxy,
    restic::Restic,
    s3::{AUTHORIZATION, BUCKET, S3},
    scratch::{Scratch, run},
    seed::Seed,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

#[test]
fn stock_restic_works_on_the_s3_server_straight_and_through_a_proxy_that_injects_nothing() -> Result<()> {
    let mut seed = Seed::from_env("store");
    let s3 = S3::start()?;
    let proxy = FaultProxy::start(s3.address(), 0, &mut seed)?;
    let scratch = Scratch::new()?;
    let password = scratch.join("password");
    account::write(&password, "secret\n")?;
    let content: String = (0..200_000).map(|_| char::from(b'a' + seed.within(0..26) as u8)).collect();
    account::write(&scratch.join("file"), &content)?;
    for address in [s3.address(), proxy.address()] {
        let url = format!("s3:http://{address}/{BUCKET}/at-{}", address.port());
        let mut restic = account::command("restic");
        restic.envs(s3.credentials().variables()).env("RESTIC_PASSWORD_FILE", &password);
        restic.args(["-o", "s3.bucket-lookup=path", "--no-cache", "-r", &url]);
        let mut init = account::command("restic");
        init.envs(s3.credentials().variables()).env("RESTIC_PASSWORD_FILE", &password);
        init.args(["-o", "s3.bucket-lookup=path", "--no-cache", "-r", &url, "init"]);
        run(&mut init)?;
        run(restic.arg("backup").arg(scratch.join("file")))?;
        let judge = Restic::new(url, &password, Some(s3.credentials()));
        judge.check_read_data()?;
        let snapshots = judge.snapshots()?;
        ensure!(snapshots.len() == 1, "{snapshots:?}");
        let into = scratch.folder(&format!("into-{}", address.port()))?;
        judge.restore(&snapshots[0], &into)?;
        let path = into.join(scratch.join("file").strip_prefix("/")?);
        ensure!(std::fs::read_to_string(path)? == content, "the file came back different");
    }
    ensure!(proxy.requests() > 5, "the proxy saw {} requests only", proxy.requests());
    Ok(())
}

#[test]
fn the_proxy_injects_every_kind_of_fault_and_a_client_that_retries_gets_through() -> Result<()> {
    let mut seed = Seed::from_env("faults");
    let s3 = S3::start()?;
    let proxy = FaultProxy::start(s3.address(), 2, &mut seed)?;
    let put = |number: u32| -> Result<bool> {
        let mut stream = TcpStream::connect(proxy.address())?;
        let body = vec![b'x'; 100_000];
        let head = format!(
            "PUT /{BUCKET}/object{number} HTTP/1.1\r\nHost: {}\r\n{AUTHORIZATION}\r\nContent-Length: {}\r\n\r\n",
            s3.address(),
            body.len()
        );
        // A cut connection may show itself while writing or while reading.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Ok(answer.starts_with(b"HTTP/1.1 200") && answer.windows(4).any(|four| four == b"\r\n\r\n"))
    };
    for number in 0..60 {
        let mut tries = 0;
        while !put(number)? {
            tries += 1;
            ensure!(tries < 40, "object {number} does not get through");
        }
    }
    let injected = proxy.injected();
    ensure!(injected.len() == 6, "not every fault was injected: {injected:?}");
    Ok(())
}
